"""A process as /proc has it, as far as we may look: who made it, and what its threads wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
# Where the kernel keeps a thread that waits for a page.
USERFAULT = "handle_userfault"
# What a thread is called that cannot be looked into.
UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread: *wchan* is where in the kernel it sleeps, empty if it does not."""

    tid: int
    name: str
    wchan: str

    @property
    def waits_for_page(self) -> bool:
        """Whether a page is what it waits for."""
        return self.wchan == USERFAULT


def exists(pid: int) -> bool:
    """Whether there is such a process."""
    return (PROC / str(pid)).exists()


def threads(pid: int) -> list[Thread]:
    """Return the threads of a process."""
    found = []
    for path in sorted((PROC / str(pid) / "task").glob("*"), key=lambda path: int(path.name)):
        name, wchan = read(path / "comm"), read(path / "wchan")
        found.append(Thread(int(path.name), name, "" if wchan == "0" else wchan))
    return found


def read(path: Path) -> str:
    """Return what a file says, if it may be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return UNKNOWN


def ancestors(pid: int) -> Iterator[int]:
    """Yield the pids of a process's parent, of that one's, and so on."""
    with contextlib.suppress(OSError):
        while (pid := parent_of(pid)) > 0:
            yield pid


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent, 0 if it has none."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("PPid:"):
            return int(line.removeprefix("PPid:"))
    return 0
