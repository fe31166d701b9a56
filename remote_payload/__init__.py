"""What runs on the box: the agent (standard library only) and the training payload (torch)."""
