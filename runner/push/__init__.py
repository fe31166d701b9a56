"""What is sent to the box, why the rest is not, and how to tell whether it changed. No connection is opened here."""
