"""What the log of a program of the user's own tells of its training: lines become events."""
