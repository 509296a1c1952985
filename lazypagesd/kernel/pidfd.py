"""What a pidfd is, read from the descriptor itself: fdinfo has a ``Pid:`` line (Linux 5.4)."""

from __future__ import annotations

from pathlib import Path


def is_pidfd(fd: int) -> bool:
    """Whether *fd* is one, whatever has become of its process."""
    return _pid_line(fd) is not None


def pid_of(fd: int) -> int | None:
    """Return the pid of the process behind *fd*, or None if it is gone, or none that we see."""
    pid = int(_pid_line(fd) or 0)
    return pid if pid > 0 else None


def _pid_line(fd: int) -> str | None:
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return line.removeprefix("Pid:")
    return None
