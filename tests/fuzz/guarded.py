"""Memory that ends where it says: what is read or written beyond it is a SIGSEGV."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

from lazypagesd.native import ffi

if TYPE_CHECKING:
    from lazypagesd.native._native import CData

PROT_NONE = 0
LIBC = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """*size* bytes between which and a page that cannot be touched there is nothing.

    Kept, with its mapping, until the object dies.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(
            -1, room + mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self._bytes = ffi.from_buffer("uint8_t[]", self._map)
        start = int(ffi.cast("uintptr_t", self._bytes))
        if LIBC.mprotect(ctypes.c_void_p(start + room), mmap.PAGESIZE, PROT_NONE):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._at = self._bytes + (room - size)

    @classmethod
    def of(cls, data: bytes) -> Guarded:
        """Return a copy of *data*."""
        guarded = cls(len(data))
        ffi.buffer(guarded._at, len(data))[:] = data
        return guarded

    def as_array(self, kind: str) -> CData:
        """Return a pointer to the first of them as a *kind*; it does not keep them."""
        return ffi.cast(f"{kind} *", self._at)
