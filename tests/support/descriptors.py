"""What a process has open."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


def descriptors(pid: int | str = "self") -> dict[str, str]:
    """Return the descriptors of a process, by default of this one, and what each is open on."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed a moment ago, as the directory's own
            found[path.name] = os.fspath(path.readlink())
    return found


@contextlib.contextmanager
def dead_directory() -> Iterator[int]:
    """Yield a descriptor that is open, and that fstat() fails for (tried on 6.18): what a process
    that is dead has open, as a directory."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        fd = os.open(f"/proc/{process.pid}/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
