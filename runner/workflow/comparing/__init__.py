"""``gpurun compare``: what this machine knows of several runs, and in what they differ."""
