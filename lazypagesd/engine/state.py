"""The state of a session, in one memfd that another process could map: see struct lpd_state."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from lazypagesd.engine.pace import Pace
from lazypagesd.errors import SessionError
from lazypagesd.native import ffi, lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData


def memory_of(nr_regions: int, nr_pages: int) -> int:
    """Return how many bytes a state with so many regions and pages takes at least."""
    fixed = int(ffi.sizeof("struct lpd_state"))
    return fixed + nr_regions * int(ffi.sizeof("struct lpd_region")) + nr_pages // 8


class State:
    """A mapped state memfd.  Owns the descriptor and the mapping; close() gives up both."""

    def __init__(self, fd: int, size: int) -> None:
        """Map *size* bytes of *fd*, which is closed with the state.  Takes ownership of *fd*."""
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        # The buffer keeps the mapping from being closed under the pointer.
        self._buffer = ffi.from_buffer("uint8_t[]", self._map)
        self.pointer: CData = ffi.cast("struct lpd_state *", self._buffer)

    @classmethod
    def create(
        cls,
        name: str,
        regions: CData,
        nr_regions: int,
        nr_pages: int,
        nr_sources: int,
        *,
        protocol: int = lib.LPD_PROTOCOL_UFFD_MSG,
    ) -> State:
        """Lay out a new state.

        *regions* is a struct lpd_region[] of *nr_regions*, with *nr_pages* pages in all;
        *protocol* an LPD_PROTOCOL_..., which says how its descriptor is read and filled.  Raises
        SessionError if they are not sorted, disjoint, page-aligned and in user space.
        """
        state = cls._empty(name, nr_pages)
        code = lib.lpd_state_init(
            state.pointer, protocol, regions, nr_regions, nr_pages, nr_sources
        )
        if code:
            state.close()
            raise SessionError(
                f"{name}: {nr_regions} regions are no page map ({os.strerror(-code)})"
            )
        return state

    def fork(self, name: str, child_fd: int) -> State:
        """Make the state of the process behind *child_fd*, which forked from this one's.

        The worker of this one must be paused.
        """
        child = self._empty(name, self.pointer.nr_pages)
        lib.lpd_state_fork(child.pointer, self.pointer)
        # A child that is at work already, or gone, has what is left: fills will tell.
        lib.lpd_state_prune(child.pointer, child_fd)
        return child

    @classmethod
    def _empty(cls, name: str, nr_pages: int) -> State:
        size = lib.lpd_state_size(nr_pages)
        fd = os.memfd_create(f"lazypagesd:{name}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, size)  # sparse: room for the worst case costs nothing
            return cls(fd, size)
        except OSError:
            os.close(fd)
            raise

    @property
    def nr_pages(self) -> int:
        """How many pages the image has for this address space."""
        return int(self.pointer.nr_pages)

    @property
    def nr_missing(self) -> int:
        """How many of them the image still has to give."""
        return int(self.pointer.nr_missing)

    def release(self) -> None:
        """Let the worker drain: the restore has finished."""
        lib.lpd_state_release(self.pointer)

    @property
    def pace(self) -> Pace:
        """How fast it is to be drained, unless the machine suffers."""
        return Pace(int(self.pointer.pace))

    def set_pace(self, pace: Pace, slowdown: int = 0) -> None:
        """Let the worker drain so fast, or *slowdown* halvings slower if it is a rate."""
        self.pointer.pace = pace.rate
        lib.lpd_state_set_drain_rate(self.pointer, pace.slowed(slowdown).rate)

    def close(self) -> None:
        """Unmap and close.  The pointer must not be used any more."""
        self.pointer = ffi.NULL
        ffi.release(self._buffer)
        self._map.close()
        os.close(self.fd)
