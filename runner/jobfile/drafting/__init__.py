"""What ``gpurun init`` does: a guess at the job for the code in a folder, by reading it alone, and the job file for that."""
