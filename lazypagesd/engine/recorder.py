"""The flight recorder of a worker: its last faults, and what else it did, as values.

It lies in a memfd, which outlives the daemon: the worker of that number in the next one goes on
in it.  How a reader tells what is whole is in recorder.h.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from lazypagesd.closing import Closing
from lazypagesd.engine.memory import Memory
from lazypagesd.engine.statistics import KINDS
from lazypagesd.errors import SessionError
from lazypagesd.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazypagesd.native._native import CData

MEMFD_NAME = "lazypagesd-recorder"
SIZE = int(ffi.sizeof("struct lpd_recorder"))
# Entries that are looked at in one go: between two of them others may have their turn.
BATCH = 2048
NO_SOURCE = 2**32 - 1
# struct lpd_fault and struct lpd_step.
FAULT_LAYOUT = struct.Struct("=4Q3IH2B")
STEP_LAYOUT = struct.Struct("=4Q3I4x")


class Outcome(enum.StrEnum):
    """How a fault ended: enum lpd_fault_outcome."""

    FILLED = "filled"
    WOKEN = "woken"
    HELD = "held"
    GONE = "gone"


class StepKind(enum.StrEnum):
    """What else happened to a session: enum lpd_step_kind."""

    NEIGHBOUR = "neighbour"
    DRAIN = "drain"
    FORK = "fork"
    REMAP = "remap"
    REMOVE = "remove"
    UNMAP = "unmap"


OUTCOMES = dict(enumerate(Outcome, 1))  # from 1 on, as in C
STEP_KINDS = dict(enumerate(StepKind, 1))


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: *time_ns*, of CLOCK_MONOTONIC, is when it was answered, *latency_ns* after its
    message had been read.  *source* is the index of a file of its session."""

    time_ns: int
    addr: int
    offset: int
    latency_ns: int
    session: int
    tid: int
    source: int | None
    tries: int
    kind: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Step:
    """Pages [addr, addr + len) filled unasked, or an event: *to* is where a remap went, *child*
    the session that a fork has made."""

    time_ns: int
    addr: int
    len: int
    to: int
    session: int
    child: int
    kind: StepKind


Entry = TypeVar("Entry", Fault, Step)


def fault_of(fields: tuple[int, ...]) -> Fault:
    """Return the struct lpd_fault that has these *fields*."""
    time_ns, addr, offset, latency_ns, session, tid, source, tries, kind, outcome = fields
    return Fault(
        time_ns=time_ns,
        addr=addr,
        offset=offset,
        latency_ns=latency_ns,
        session=session,
        tid=tid,
        source=None if source == NO_SOURCE else source,
        tries=tries,
        kind=KINDS[kind],
        outcome=OUTCOMES[outcome],
    )


def step_of(fields: tuple[int, ...]) -> Step:
    """Return the struct lpd_step that has these *fields*."""
    time_ns, addr, length, to, session, child, kind = fields
    return Step(time_ns, addr, length, to, session, child, STEP_KINDS[kind])


class Ring(Generic[Entry]):
    """One of a recorder's two rings, as somebody sees it who does not write it."""

    def __init__(
        self,
        recorder: CData,
        what: str,
        layout: struct.Struct,
        capacity: int,
        make: Callable[[tuple[int, ...]], Entry],
    ) -> None:
        """Read the *recorder*'s *what*, faults or steps, of this *layout* and *capacity*."""
        self._recorder = recorder
        self._count_name = f"nr_{what}"
        self._copy: Callable[[CData, int, int, CData], int]
        self._copy = getattr(lib, f"lpd_recorder_read_{what}")
        self._copied = ffi.new(f"struct lpd_{what.removesuffix('s')}[]", BATCH)
        self._layout = layout
        self._capacity = capacity
        self._make: Callable[[tuple[int, ...]], Entry] = make

    @property
    def nr_written(self) -> int:
        """How many there ever were."""
        return int(getattr(self._recorder, self._count_name)) if self._recorder else 0

    @property
    def nr_lost(self) -> int:
        """How many are no more, since others have taken their places, or are about to."""
        return max(self.nr_written + 1 - self._capacity, 0)

    def read(self, sessions: Collection[int] | None = None) -> Iterator[list[Entry]]:
        """Yield what there is now, the oldest first, in lists, which may be empty: of *sessions*,
        or of all.  What is overwritten meanwhile is left out."""
        position, end = self.nr_lost, self.nr_written
        while position < end:
            stop = min(position + BATCH, end)
            yield self._batch(position, stop, sessions)
            position = stop

    def newest(self, limit: int, sessions: Collection[int] | None = None) -> Iterator[list[Entry]]:
        """Yield the last *limit* entries in the same way, but the newest list first."""
        first, stop = self.nr_lost, self.nr_written
        while first < stop and limit > 0:
            position = max(stop - BATCH, first)
            found = self._batch(position, stop, sessions)[-limit:]
            yield found
            limit -= len(found)
            stop = position

    def close(self) -> None:
        """Read nothing any more."""
        self._recorder = ffi.NULL

    # Copied at one go, for others may read as well between two lists.
    def _batch(self, start: int, stop: int, sessions: Collection[int] | None) -> list[Entry]:
        if not self._recorder:
            return []
        whole = self._copy(self._recorder, start, stop, self._copied)
        size = self._layout.size
        copied = ffi.buffer(self._copied, (stop - start) * size)[(whole - start) * size :]
        entries = []
        for fields in self._layout.iter_unpack(copied):
            # The number of the session has the same place in both.
            if sessions is not None and fields[4] not in sessions:
                continue
            # What is of no kind was never written: its memory has been damaged.
            try:
                entries.append(self._make(fields))
            except LookupError:
                continue
        return entries


class Recorder(Closing):
    """A mapped recorder.  Owns *fd* until close()."""

    def __init__(self, fd: int) -> None:
        """Map what is in *fd*.  Takes ownership of it, unless it raises."""
        self.fd = fd
        self._memory = Memory(fd)
        self.pointer: CData = ffi.cast("struct lpd_recorder *", self._memory.pointer)
        self.faults = Ring(self.pointer, "faults", FAULT_LAYOUT, lib.LPD_RECORDER_FAULTS, fault_of)
        self.steps = Ring(self.pointer, "steps", STEP_LAYOUT, lib.LPD_RECORDER_STEPS, step_of)

    @classmethod
    def create(cls, number: int) -> Recorder:
        """Make that of worker *number*."""
        fd = os.memfd_create(f"{MEMFD_NAME}:{number}", os.MFD_CLOEXEC)
        try:
            # Sparse: what is not written costs nothing.
            os.ftruncate(fd, SIZE)
            recorder = cls(fd)
        except OSError:
            os.close(fd)
            raise
        lib.lpd_recorder_init(recorder.pointer, number)
        return recorder

    @classmethod
    def take_over(cls, fd: int) -> Recorder:
        """Map one that another daemon has left.  Takes ownership of *fd*, unless it raises
        SessionError, as it does if it is none of ours."""
        if os.fstat(fd).st_size != SIZE:
            raise SessionError(f"a flight recorder of {os.fstat(fd).st_size} bytes (ours: {SIZE})")
        recorder = cls(fd)
        if lib.lpd_recorder_check(recorder.pointer):
            recorder.unmap()
            raise SessionError("its flight recorder is none that we can read")
        recorder.pointer.nr_takeovers += 1
        return recorder

    @property
    def number(self) -> int:
        """That of the worker whose it is."""
        return int(self.pointer.worker)

    @property
    def last_session(self) -> int:
        """The largest number that a session had so far; whoever has a recorder may set it."""
        return int(self.pointer.last_session)

    @last_session.setter
    def last_session(self, number: int) -> None:
        self.pointer.last_session = number

    @property
    def nr_takeovers(self) -> int:
        """How many daemons have gone on in it."""
        return int(self.pointer.nr_takeovers)

    def unmap(self) -> None:
        """Give up the mapping alone; *fd* is the caller's."""
        self.faults.close()
        self.steps.close()
        self.pointer = ffi.NULL
        self._memory.close()

    def close(self) -> None:
        """Unmap and close."""
        self.unmap()
        os.close(self.fd)
