"""A run as a Slurm job: docs/slurm.md."""
