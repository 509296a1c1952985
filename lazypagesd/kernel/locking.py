"""Keeping memory of our own in memory, so that no fault of ours holds up one of somebody else's.

Some facts (man 2 mlock2): with MLOCK_ONFAULT what is there stays, and what is not will stay once
it has been touched, so a sparse range stays sparse.  All of the range counts against
RLIMIT_MEMLOCK, which binds whoever has not CAP_IPC_LOCK.  A lock ends with its mapping.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

MLOCK_ONFAULT = 1  # linux/mman.h
MAPS = Path("/proc/self/maps")

_mlock2 = ctypes.CDLL(None).mlock2
_mlock2.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]


def keep(addr: int, size: int) -> bool:
    """Keep *size* bytes at *addr* in memory as far as they are used; return whether the limit
    allows it."""
    return bool(_mlock2(addr, size, MLOCK_ONFAULT) == 0)


def keep_code(*names: str) -> bool:
    """Keep what is mapped of the libraries whose file names begin with one of *names*; return
    whether the limit allows it."""
    ranges = list(mapped(MAPS.read_text(errors="surrogateescape"), names))
    return all([keep(start, end - start) for start, end in ranges])


def mapped(maps: str, names: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield the ranges that *maps*, in the format of /proc/PID/maps, has for such files."""
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and Path(fields[5]).name.startswith(names):
            start, end = fields[0].split("-")
            yield int(start, 16), int(end, 16)
