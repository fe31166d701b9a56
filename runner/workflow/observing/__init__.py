"""What is known of a run from here: its status, its log and events as they come, its history, and where its outputs are."""
