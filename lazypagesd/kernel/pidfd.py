"""What a pidfd is, read from the descriptor itself: fdinfo has a ``Pid:`` line (Linux 5.4)."""

from __future__ import annotations

from pathlib import Path


def is_pidfd(fd: int) -> bool:
    """Whether *fd* is one, whatever has become of its process."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return any(line.startswith("Pid:") for line in lines)
