"""What is measured, for programs that collect such things: Prometheus, and systemd's metrics.

families.py is the one list of all; the other modules are ways to tell it.
"""
