"""One address space: a descriptor, its state, and what its worker says of it."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lazypagesd.engine.pace import Pace
from lazypagesd.engine.state import State
from lazypagesd.engine.statistics import Counters
from lazypagesd.kernel import pidfd, uffd
from lazypagesd.native import ffi, lib
from lazypagesd.sources.file import FileSource

if TYPE_CHECKING:
    from lazypagesd.engine.worker import Worker
    from lazypagesd.native._native import CData


class End(enum.StrEnum):
    """How a session ended."""

    DRAINED = "drained"  # every page is in
    GONE = "gone"  # the address space is no more
    ABANDONED = "abandoned"  # given up by the control plane


@dataclass(frozen=True, slots=True)
class Trouble:
    """A page that cannot be filled, and why.

    *source* is None where the kernel refused the fill itself.  *waiting* says whether a thread
    waits for it, or the drain has met it.
    """

    addr: int
    source: str | None
    offset: int
    error: OSError
    waiting: bool


class Reason(enum.StrEnum):
    """Why a fault that was read is not answered yet."""

    RETRY = "retry"  # its mappings are changing, or memory is short
    COLD = "cold"  # its bytes are on their way
    HELD = "held"  # it cannot be filled


@dataclass(frozen=True, slots=True)
class Waiting:
    """A fault that was read *since_ns* (CLOCK_MONOTONIC), and is not answered yet.

    *source* and *offset* are where its bytes are to come from, if from a file; *error* is what was
    wrong, if it is held.  *tid* is the thread's own number, and *tries* are attempts to fill it; 0
    where that is not known, as of those that are held.
    """

    addr: int
    since_ns: int
    reason: Reason
    source: str | None
    offset: int | None
    error: OSError | None = None
    tid: int = 0
    tries: int = 0


@dataclass(frozen=True, slots=True)
class ThreadLoss:
    """What the thread *tid*, by its own pid namespace, has waited for; 0 is all those for whom
    there was no place."""

    tid: int
    faults: int
    lost_ns: int


# How long after a retry a page that was held is thought to be so still, if nothing is heard.
HELD_GRACE_NS = 1_000_000_000


class Session:
    """One userfaultfd being served.  Owns *fd*, *pidfd* and *state* until close()."""

    def __init__(
        self,
        name: str,
        fd: int,
        state: State,
        sources: Sequence[FileSource],
        *,
        pidfd: int | None = None,
        id: int = 0,
    ) -> None:
        """Prepare a session, which has the number *id* in the flight recorder.

        Takes ownership of *fd*, *state* and *pidfd*; borrows the sources' descriptors.
        """
        self.name = name
        self.id = id
        self.fd = fd
        self.pidfd = pidfd
        self.state = state
        self.sources = tuple(sources)
        self.end: End | None = None
        self.worker: Worker | None = None
        self.paused = False  # nothing is filled unasked, whatever the pace
        self.final: Counters | None = None
        self.nr_children = 0
        self._leaving = False
        self._pid: int | None = None
        # Pages that cannot be filled, by address; and those of before the last retry.
        self._held: dict[int, Waiting] = {}
        self._retried: dict[int, Waiting] = {}
        self._retried_ns = 0
        # What the session told of itself: set by whoever it belongs to, called in the control
        # plane's thread.
        self.on_fork: Callable[[Session, int], None] = lambda session, child_fd: None
        self.on_end: Callable[[Session], None] = lambda session: None
        self.on_trouble: Callable[[Session, Trouble], None] = lambda session, trouble: None
        self._c_sources = ffi.new("struct lpd_source[]", max(len(self.sources), 1))
        for c_source, source in zip(self._c_sources, self.sources, strict=False):
            c_source.fd, c_source.kind, c_source.size = source.fd, source.kind, source.size
        self.pointer: CData = ffi.new("struct lpd_session *")
        self.pointer.state = state.pointer
        self.pointer.sources = self._c_sources
        self.pointer.fd = fd
        self.pointer.id = id

    @property
    def counters(self) -> Counters:
        """What it did so far; after its end, what it did in all."""
        return self.final or Counters.read(self.state.pointer)

    @property
    def bytes_filled(self) -> int:
        """Of its counters, the one that is looked at all the time."""
        return self.final.bytes if self.final else int(self.state.pointer.counters.bytes)

    @property
    def is_forking(self) -> bool:
        """Whether it waits until its child has a session."""
        return self.final is None and bool(self.pointer.paused)

    @property
    def is_held(self) -> bool:
        """Whether somebody waits for a page that cannot be filled, as far as is known."""
        return self.final is None and bool(self._holding())

    def waiting(self) -> list[Waiting]:
        """Return the faults that were read and are not answered yet, the oldest first; while a
        worker is at them, about so."""
        if self.final is not None:
            return []
        pending = self.pointer.pending
        nr_pending = min(self.pointer.nr_pending, lib.LPD_MAX_PENDING)
        found = [self._waiting(pending[i]) for i in range(nr_pending)]
        return sorted(found + self._holding(), key=lambda each: each.since_ns)

    def _holding(self) -> list[Waiting]:
        # Where the worker holds none, what is noted was told before it tried again.
        held = dict(self._held) if self.state.pointer.counters.held else {}
        if time.monotonic_ns() - self._retried_ns < HELD_GRACE_NS:
            held = self._retried | held
        # Not once its page has been filled, or given up.
        return [
            each
            for each in held.values()
            if each.source is None or self.state.is_missing(each.addr)
        ]

    @property
    def oldest_waiting_ns(self) -> int | None:
        """How long the fault has waited that was read first of those that wait; None if none
        does."""
        waiting = self.waiting()
        return time.monotonic_ns() - waiting[0].since_ns if waiting else None

    def _waiting(self, pending: CData) -> Waiting:
        known = pending.source < len(self.sources)
        return Waiting(
            addr=int(pending.addr),
            since_ns=int(pending.read_ns),
            reason=Reason.COLD if pending.kind == lib.LPD_FAULT_COLD else Reason.RETRY,
            source=self.sources[pending.source].name if known else None,
            offset=int(pending.offset) if known else None,
            tid=int(pending.tid),
            tries=int(pending.tries),
        )

    @property
    def threads(self) -> list[ThreadLoss]:
        """What each thread has waited for, where they are told apart: the one that lost most
        first."""
        if self.final is not None:
            return []
        losses = [
            ThreadLoss(int(thread.tid), int(thread.faults), int(thread.lost_ns))
            for thread in self.state.pointer.threads
            if thread.faults
        ]
        return sorted(losses, key=lambda loss: -loss.lost_ns)

    @property
    def nr_queued(self) -> int | None:
        """How many faults the kernel has that nobody has read; None if it does not tell."""
        return None if self.final is not None or self.has_channel else uffd.nr_pending(self.fd)

    @property
    def wants_retry(self) -> bool:
        """Whether faults are held, or the drain has come to where it cannot go on."""
        return bool(self.pointer.stuck or self.state.pointer.counters.held)

    @property
    def pid(self) -> int | None:
        """Its process, as we see it, for as long as that is known to live."""
        if self.pidfd is None:
            return None
        if self._pid is None:
            self._pid = pidfd.pid_of(self.pidfd)
        return self._pid

    @property
    def has_channel(self) -> bool:
        """Whether its descriptor is a channel's, and no userfaultfd."""
        return int(self.state.pointer.protocol) != lib.LPD_PROTOCOL_UFFD_MSG

    @property
    def nr_regions(self) -> int:
        """How many regions it has, moved and cut as they are; none when it has ended."""
        if self.final is not None:
            return 0
        count = ffi.new("uint64_t *")
        lib.lpd_state_regions(self.state.pointer, count)
        return int(count[0])

    def is_gone(self) -> bool:
        """Whether its address space has ended: the descriptor knows, also after an exec."""
        return bool(lib.lpd_session_is_gone(self.pointer))

    def request(self, what: int) -> None:
        """Ask its worker for something (LPD_REQUEST_... bits); nothing once it is to let go.

        But for RESUME: until then a session that is paused cannot be let go of.
        """
        if self.worker is None or (self._leaving and what != lib.LPD_REQUEST_RESUME):
            return
        # After its last word the worker must not find the session in its inbox again.
        self._leaving |= bool(what & lib.LPD_REQUEST_DETACH)
        lib.lpd_session_request(self.pointer, what)

    def drain(self) -> None:
        """Let everything that is missing be filled: the restore has finished."""
        self.state.release()
        self.request(lib.LPD_REQUEST_DRAIN)

    def set_pace(self, pace: Pace, slowdown: int = 0) -> None:
        """Drain at *pace* from now on, halved *slowdown* times if it is a rate."""
        self.state.set_pace(pace, slowdown, paused=self.paused)
        self.request(lib.LPD_REQUEST_DRAIN)

    def hold(self, trouble: Trouble) -> None:
        """Note a page that cannot be filled, if somebody waits for it."""
        if not trouble.waiting:
            return
        before = self._held.get(trouble.addr) or self._retried.get(trouble.addr)
        self._held[trouble.addr] = Waiting(
            addr=trouble.addr,
            since_ns=before.since_ns if before else time.monotonic_ns(),
            reason=Reason.HELD,
            source=trouble.source,
            offset=trouble.offset if trouble.source else None,
            error=trouble.error,
        )

    def retry(self) -> None:
        """Let the faults that are held be tried again: those that cannot be filled are told
        anew."""
        self._retried, self._held = self._held, {}
        self._retried_ns = time.monotonic_ns()
        self.request(lib.LPD_REQUEST_RETRY)

    def take_troubles(self) -> list[Trouble]:
        """Take the reports of pages that cannot be filled, oldest first."""
        troubles, trouble = [], ffi.new("struct lpd_trouble *")
        while lib.lpd_session_take_trouble(self.pointer, trouble) == 0:
            known = trouble.source < len(self.sources)
            troubles.append(
                Trouble(
                    addr=trouble.addr,
                    source=self.sources[trouble.source].name if known else None,
                    offset=trouble.offset,
                    error=OSError(trouble.err, os.strerror(trouble.err)),
                    waiting=bool(trouble.waiting),
                )
            )
        return troubles

    def close_pidfd(self) -> None:
        """Close the pidfd, if there still is one."""
        if self.pidfd is not None:
            # Its number may soon be another's.
            self.state.forget_pidfd()
            os.close(self.pidfd)
            self.pidfd = None

    def close(self) -> None:
        """Close what it owns.  Its worker must have let go of it."""
        self.final = self.counters
        self.close_pidfd()
        # First what names the descriptor: without it whoever takes over would miss the other.
        self.state.close()
        os.close(self.fd)
