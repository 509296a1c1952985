"""A worker: a thread in C that serves sessions, with those that read cold pages for it, and those
that help it to fill."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lazypagesd.engine.memory import address_of
from lazypagesd.engine.recorder import Recorder
from lazypagesd.engine.session import Session
from lazypagesd.kernel import locking
from lazypagesd.native import ffi, lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData

# Threads that wait for a disk on behalf of one worker.
NR_READERS = 2

# Of what a session misses helpers take a part, if it is more than they all have at a time.
HELPED_FROM_PAGES = 2048
# A COPY that takes a helper longer, who may be nice, was interrupted by somebody else.
HELPER_WAIT_NS = 1_000_000

# For so long, at most, a worker asks for messages before it sleeps: for none, once a millisecond
# has been quiet.
MAX_POLL_NS = 800_000


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """What a worker did: *busy_ns* of its *uptime_ns* it was at work, and *polled_ns* it asked
    for messages that were not there; the rest it slept."""

    number: int
    nr_sessions: int
    nr_turns: int
    busy_ns: int
    polled_ns: int
    uptime_ns: int
    longest_turn_ns: int


class Worker:
    """Owns its threads and descriptors from start() to stop()."""

    def __init__(self, number: int, nr_helpers: int = 0) -> None:
        """Prepare the memory of worker *number*, which *nr_helpers* others help to fill large
        sessions when all is quiet."""
        self.number = number
        self.sessions: dict[CData, Session] = {}
        self._memory = {
            "staging": ffi.new("uint8_t[]", lib.LPD_STAGING_SIZE),
            "page": ffi.new("uint8_t[]", lib.LPD_PAGE_SIZE),
            "reads": ffi.new("uint8_t[]", lib.LPD_NR_READS * lib.LPD_READ_SIZE),
            "assemblies": ffi.new("uint8_t[]", lib.LPD_NR_ASSEMBLIES * lib.LPD_HUGE_SIZE),
            "pieces": ffi.new("uint8_t[]", lib.LPD_MAX_HELPERS * lib.LPD_HELPER_READ_SIZE),
        }
        self.pointer: CData = ffi.new("struct lpd_worker *")
        self.pointer.staging = self._memory["staging"]
        self.pointer.page = self._memory["page"]
        for i in range(lib.LPD_NR_READS):
            self.pointer.reads[i].bytes = self._memory["reads"] + i * lib.LPD_READ_SIZE
        for i in range(lib.LPD_NR_ASSEMBLIES):
            self.pointer.assemblies[i].bytes = self._memory["assemblies"] + i * lib.LPD_HUGE_SIZE
        self.pointer.max_poll_ns = MAX_POLL_NS
        self.pointer.nr_helpers = min(nr_helpers, lib.LPD_MAX_HELPERS)
        self.pointer.helped_from_pages = HELPED_FROM_PAGES
        self.pointer.helper_wait_ns = HELPER_WAIT_NS
        for i in range(self.pointer.nr_helpers):
            self.pointer.helpers[i].bytes = self._memory["pieces"] + i * lib.LPD_HELPER_READ_SIZE
        self.recorder: Recorder | None = None
        self._threads: list[threading.Thread] = []
        self._nr_turns = -1

    def start(self, recorder: Recorder | None = None) -> None:
        """Open its descriptors and start its threads; its memory stays, where that is allowed.

        Takes ownership of *recorder*, in which it goes on; without one, makes its own.
        """
        self.recorder = recorder or Recorder.create(self.number)
        self.pointer.recorder = self.recorder.pointer
        for buffer in self._memory.values():
            locking.keep(address_of(buffer), ffi.sizeof(buffer))
        if code := lib.lpd_worker_init(self.pointer):
            raise OSError(-code, f"worker {self.number}: {os.strerror(-code)}")
        self._spawn("worker", lib.lpd_worker_run)
        for _ in range(NR_READERS):
            self._spawn("reader", lib.lpd_reader_run)
        for i in range(self.pointer.nr_helpers):
            self._spawn("helper", functools.partial(self._help, i))

    def _help(self, number: int, pointer: CData) -> int:
        return lib.lpd_helper_run(pointer, number)

    def _spawn(self, what: str, run: Callable[[CData], int]) -> None:
        # Daemonic: a reader that waits for a dead network file system must not keep the process
        # from exiting.
        thread = threading.Thread(
            target=run, args=(self.pointer,), name=f"{what}-{self.number}", daemon=True
        )
        thread.start()
        self._threads.append(thread)

    @property
    def report_fd(self) -> int:
        """Readable when take_reports() has news."""
        return int(self.pointer.report_fd)

    @property
    def thread_id(self) -> int | None:
        """The kernel's number of the thread that serves; None before start()."""
        return self._threads[0].native_id if self._threads else None

    def attach(self, session: Session) -> None:
        """Serve a session from now on."""
        session.worker = self
        session.pointer.worker = self.pointer
        self.sessions[session.pointer] = session
        session.request(lib.LPD_REQUEST_ATTACH)

    def take_reports(self) -> tuple[list[tuple[Session, int]], list[Session]]:
        """Take sessions that have something to tell (LPD_STATUS_... bits), and those let go of.

        The latter are the caller's to close; they are taken first, so that no report of
        theirs is left behind.
        """
        os.eventfd_read(self.report_fd)
        detached, pointer = [], lib.lpd_worker_take_detached(self.pointer)
        while pointer:
            detached.append(self.sessions[pointer])
            pointer = pointer.next_detached
        reports = []
        while pointer := lib.lpd_worker_take_report(self.pointer):
            reports.append((self.sessions[pointer], lib.lpd_session_take_status(pointer)))
        for session in detached:
            del self.sessions[session.pointer]
            session.worker = None
        return reports, detached

    @property
    def statistics(self) -> WorkerStatistics:
        """What it did since start()."""
        pointer = self.pointer
        # First of all: what is counted meanwhile is in busy_ns as well.
        longest_turn_ns = int(pointer.longest_turn_ns)
        return WorkerStatistics(
            number=self.number,
            nr_sessions=len(self.sessions),
            nr_turns=int(pointer.nr_turns),
            busy_ns=int(pointer.busy_ns),
            polled_ns=int(pointer.polled_ns),
            # Until the thread has begun, it has begun just now.
            uptime_ns=time.monotonic_ns() - int(pointer.began_ns or time.monotonic_ns()),
            longest_turn_ns=longest_turn_ns,
        )

    def has_turned(self) -> bool:
        """Whether it has taken a turn since this was last called, which asks for one.

        Its readers are not asked: who waits for a dead network file system holds nobody up.
        """
        before, self._nr_turns = self._nr_turns, int(self.pointer.nr_turns)
        os.eventfd_write(self.pointer.inbox_fd, 1)
        return self._nr_turns != before

    def stop(self) -> None:
        """End its threads and close its descriptors.  Every session must have been let go of."""
        lib.lpd_worker_stop(self.pointer, NR_READERS)
        for thread in self._threads:
            thread.join()
        lib.lpd_worker_deinit(self.pointer)
        if self.recorder is not None:
            self.pointer.recorder = ffi.NULL
            self.recorder.close()
