"""The demo, run as its user runs it."""
