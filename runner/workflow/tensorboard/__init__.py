"""``gpurun tensorboard``: TensorBoard on this machine over the logs of runs, which come home while they train."""
