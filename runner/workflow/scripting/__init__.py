"""What scripts ask for that people do not: waiting for a moment of a run, and a command beside it."""
