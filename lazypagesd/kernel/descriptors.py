"""What a descriptor is open on, whoever has made it.

/proc answers that, and not fstat(): it may fail for what is open (tried on 6.18: of /proc/PID/fd,
once that process is dead), or wait for whoever has the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path


def target(fd: int) -> str:
    """Return what a descriptor is open on, as /proc shows it; what is no UTF-8 is spelt out."""
    found = Path(f"/proc/self/fd/{fd}").readlink()
    return os.fsencode(found).decode(errors="backslashreplace")


def is_socket(fd: int) -> bool:
    """Whether *fd* is a socket; what was opened with O_PATH is none."""
    return target(fd).startswith("socket:")


def is_open(fd: int) -> bool:
    """Whether a number is in use."""
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return False
    return True
