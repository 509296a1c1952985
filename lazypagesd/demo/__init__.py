"""``python -m lazypagesd.demo``: see a process die, come back empty, and lose nothing.

Works with a real CRIU where one is found, else with a checkpoint of the demo's own: the same image
files, the same socket, the same daemon.
"""

from __future__ import annotations
