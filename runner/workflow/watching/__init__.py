"""The steps of ``gpurun watch``: what is asked of the boxes, and what is known of each run."""
