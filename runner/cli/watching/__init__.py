"""What ``gpurun watch`` shows: the layout, which is pure, and the terminal it is drawn on."""
