"""gpurun, the local tool: a job file in, a trained and checked model home."""

__version__ = "0.1.0"
