"""A memory cgroup, of the first version, that can be full.

Some facts: pages that UFFDIO_COPY makes are charged to the process that gets them. With
memory.oom_control=1 nobody is killed when that is too much: a fill gets ENOMEM. What a process
brings along when it is moved stays charged to where it was.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from pathlib import Path

from lazypagesd.closing import Closing

ROOT = Path("/sys/fs/cgroup/memory")


def is_there() -> bool:
    """Whether a cgroup could be made here."""
    return (ROOT / "memory.oom_control").exists() and os.access(ROOT, os.W_OK)


class MemoryCgroup(Closing):
    """One cgroup, which must be empty again when it is closed."""

    def __init__(self, *, kills: bool = False) -> None:
        """Make a cgroup that has room for everything; one that *kills* has somebody killed when
        there is no more."""
        self._path = Path(tempfile.mkdtemp(prefix="lazypagesd-", dir=ROOT))
        self._write("memory.oom_control", int(not kills))

    def admit(self, pid: int) -> None:
        """Charge what the process gets from now on to the cgroup."""
        self._write("cgroup.procs", pid)

    def limit(self, nr_bytes: int) -> None:
        """Let no more than *nr_bytes* be in it; -1: as many as there are."""
        self._write("memory.limit_in_bytes", nr_bytes)

    def close(self) -> None:
        """Remove the cgroup, once init has reaped the orphans among those that were in it."""
        while not self._removed():
            time.sleep(0.003)

    def _removed(self) -> bool:
        try:
            self._path.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def _write(self, name: str, value: int) -> None:
        (self._path / name).write_text(str(value))
