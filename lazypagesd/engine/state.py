"""The state of a session, in one memfd that another process could map: see struct lpd_state."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

from lazypagesd.engine.memory import Memory, address_of
from lazypagesd.engine.pace import LAZY, Pace
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.record import Record, size_for
from lazypagesd.errors import ForeignStateError, SessionError
from lazypagesd.kernel import locking
from lazypagesd.native import ffi, lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData


MEMFD_NAME = "lazypagesd-session"
MEMFD_NAME_MAX = 249  # of bytes: see memfd_create(2)
# Of states that are made here, and the oldest that can be taken over.
VERSION = int(lib.LPD_STATE_VERSION)
OLDEST_VERSION = int(lib.LPD_STATE_OLDEST)
SIZE_OFFSET = int(ffi.offsetof("struct lpd_state", "size"))


def memory_of(nr_regions: int, nr_pages: int) -> int:
    """Return how many bytes a state with so many regions and pages takes at least."""
    fixed = int(ffi.sizeof("struct lpd_state"))
    return fixed + nr_regions * int(ffi.sizeof("struct lpd_region")) + nr_pages // 8


def left_size(fd: int) -> int:
    """Return the size that the head of a state in *fd* claims, which is 0 before there is a head;
    SessionError if that cannot be."""
    if not any(os.pread(fd, SIZE_OFFSET + 8, 0)):
        return 0
    claimed = int.from_bytes(os.pread(fd, 8, SIZE_OFFSET), sys.byteorder)
    if not ffi.sizeof("struct lpd_state") <= claimed <= os.fstat(fd).st_size:
        raise SessionError(f"its state is broken (of {claimed} bytes)")
    return claimed


class State:
    """A mapped state memfd: a struct lpd_state, and behind it a record of whose it is.

    Owns the descriptor and the mapping; close() gives up both.
    """

    def __init__(self, fd: int, size: int) -> None:
        """Map all of *fd*, of which the first *size* bytes are the state proper.

        Takes ownership of *fd*, which is closed with the state; unless it raises.
        """
        self.fd = fd
        self._memory = Memory(fd)
        self.record = Record(self._memory.view(size))
        self.pointer: CData = ffi.cast("struct lpd_state *", self._memory.pointer)
        # The worker sets bits in it, and reads regions, while somebody waits for a page.
        locking.keep(address_of(self.pointer), size)

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
        record_size: int = 0,
    ) -> State:
        """Lay out a new state.

        *regions* is a struct lpd_region[] of *nr_regions*, with *nr_pages* pages in all;
        *protocol* an LPD_PROTOCOL_..., which says how its descriptor is read and filled;
        *record_size* is the most that its record has in bytes.  Raises SessionError if the
        regions are not sorted, disjoint, page-aligned and in user space.
        """
        state = cls._empty(name, nr_pages, record_size)
        code = lib.lpd_state_init(
            state.pointer, protocol, regions, nr_regions, nr_pages, nr_sources
        )
        if code:
            state.close()
            raise SessionError(
                f"{name}: {nr_regions} regions are no page map ({os.strerror(-code)})"
            )
        return state

    @classmethod
    def take_over(cls, fd: int) -> State | None:
        """Map a state that another daemon has left, and make it one to begin with.

        None if there is no record in it, which is written last: it had not come to be.  Takes
        ownership of *fd*, unless it is so, or it raises: SessionError if the state is broken,
        ForeignStateError if it is of a version that is not ours.
        """
        if not (size := left_size(fd)):
            return None
        state = cls(fd, size)
        with contextlib.ExitStack() as undo:
            undo.callback(state.unmap)
            if state.record.read() is None:
                return None
            state._check()
            undo.pop_all()
        lib.lpd_state_take_over(state.pointer)
        return state

    def _check(self) -> None:
        code = lib.lpd_state_check(self.pointer, self.pointer.size)
        if code == -errno.EPROTONOSUPPORT:
            ours = f"{OLDEST_VERSION} to {VERSION}"
            raise ForeignStateError(f"of version {self.version} (ours: {ours})")
        if code:
            raise SessionError(f"its state cannot be taken over ({os.strerror(-code)})")

    def fork(self, name: str, child_fd: int, *, record_size: int = 0) -> State:
        """Make the state of the process behind *child_fd*, which forked from this one's.

        The worker of this one must be paused.
        """
        child = self._empty(name, self.pointer.nr_pages, record_size)
        lib.lpd_state_fork(child.pointer, self.pointer)
        # A child that is at work already, or gone, has what is left: fills will tell.
        lib.lpd_state_prune(child.pointer, child_fd)
        return child

    @classmethod
    def _empty(cls, name: str, nr_pages: int, record_size: int) -> State:
        size = lib.lpd_state_size(nr_pages)
        fd = os.memfd_create(f"{MEMFD_NAME}:{name}"[:MEMFD_NAME_MAX], os.MFD_CLOEXEC)
        try:
            # Sparse: room for the worst case costs nothing.
            os.ftruncate(fd, size + size_for(record_size))
            return cls(fd, size)
        except OSError:
            os.close(fd)
            raise

    @property
    def version(self) -> int:
        """That of whoever made it."""
        return int(self.pointer.version)

    def is_missing(self, addr: int) -> bool:
        """Whether the image speaks for the page at *addr*; while a worker moves it, perhaps not
        so."""
        region = lib.lpd_state_find(self.pointer, addr)
        if region == ffi.NULL:
            return False
        bit = int(region.first_bit) + (addr - int(region.start)) // lib.LPD_PAGE_SIZE
        # What is read of a region that is being moved may be of two.
        return 0 <= bit < self.nr_pages and not lib.lpd_state_test(self.pointer, bit)

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

    def set_pace(self, pace: Pace, slowdown: int = 0, *, paused: bool = False) -> None:
        """Let the worker drain so fast, or *slowdown* halvings slower if it is a rate; or not at
        all for as long as it is *paused*."""
        self.pointer.pace = pace.rate
        drained = LAZY if paused else pace.slowed(slowdown)
        lib.lpd_state_set_drain_rate(self.pointer, drained.rate)

    def forget_pidfd(self) -> None:
        """Let whoever takes over not look for the pidfd, which is about to be closed."""
        if message := self.record.read():
            record = record_pb2.Session.FromString(message)
            record.ClearField("pidfd")
            self.record.write(record.SerializeToString())

    @property
    def forks(self) -> list[int]:
        """The descriptors of children that have been told of, and have not been disowned."""
        fds = ffi.new("int32_t[]", lib.LPD_MAX_MESSAGES)
        return [int(fds[i]) for i in range(lib.lpd_state_forks(self.pointer, fds))]

    def disown(self, child_fd: int) -> None:
        """Count the child behind *child_fd* as dealt with.

        The worker must be paused, or there must be none.
        """
        lib.lpd_state_disown(self.pointer, child_fd)

    def unmap(self) -> None:
        """Give up the mapping alone; *fd* is the caller's.  The pointer must not be used any
        more."""
        self.pointer = ffi.NULL
        self.record.close()
        self._memory.close()

    def close(self) -> None:
        """Unmap and close.  The pointer must not be used any more."""
        self.unmap()
        os.close(self.fd)
