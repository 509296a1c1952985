"""A memfd that is mapped, by whoever has it.

Not by Python's mmap, which keeps a second descriptor of its own: one for each session, and one
that nobody who takes over would know.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lazypagesd.native import ffi, lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData


class Memory:
    """All of a memfd's bytes, until close()."""

    def __init__(self, fd: int) -> None:
        """Map *fd*, which stays the caller's."""
        self.size = os.fstat(fd).st_size
        mapped = ffi.new("void **")
        if code := lib.lpd_memory_map(fd, self.size, mapped):
            raise OSError(-code, os.strerror(-code), f"memfd of {self.size} bytes")
        self.pointer: CData = mapped[0]

    def view(self, start: int = 0) -> memoryview:
        """Return the bytes from *start* on, which must not be used after close()."""
        return memoryview(ffi.buffer(self.pointer, self.size))[start:]

    def close(self) -> None:
        """Unmap them."""
        lib.lpd_memory_unmap(self.pointer, self.size)
        self.pointer = ffi.NULL


def address_of(memory: CData) -> int:
    """Return where *memory*, a pointer or an array, begins."""
    return int(ffi.cast("uintptr_t", memory))
