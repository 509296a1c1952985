"""The engine: workers, the sessions spread over them, and one place where their reports arrive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence

from lazypagesd.engine.custody import Custody, NoCustody
from lazypagesd.engine.pace import Backoff
from lazypagesd.engine.recorder import Recorder
from lazypagesd.engine.session import End, Session
from lazypagesd.engine.worker import Worker
from lazypagesd.errors import SessionError
from lazypagesd.kernel import locking, uffd
from lazypagesd.native import lib

log = logging.getLogger(__name__)

# Their code answers faults; a page of a file is what a machine without memory drops first.
HOT_LIBRARIES = "_native.", "libc.so", "libc-"

# How often sessions are asked whether their address space still exists, and the machine whether
# it suffers.
PROBE_INTERVAL_S = 1.0

# How often faults that are held are tried again: somebody may have mended their source.
RETRY_INTERVAL_S = 10.0


class Engine:
    """Serves sessions with one worker a processor.

    Belongs to the running asyncio loop, from start() to stop().
    """

    def __init__(
        self,
        nr_workers: int | None = None,
        backoff: Backoff | None = None,
        custody: Custody | None = None,
    ) -> None:
        """Prepare *nr_workers* workers; by default as many as the process may use processors.

        *backoff* says how far paced sessions are slowed down, *custody* is where their
        descriptors outlive the process.
        """
        self.backoff = backoff or Backoff()
        self.custody = custody or NoCustody()
        nr_cpus = len(os.sched_getaffinity(0))
        self.workers = [Worker(i, nr_cpus - 1) for i in range(nr_workers or nr_cpus)]
        self.sessions: set[Session] = set()
        self._by_identity: dict[tuple[int, int], set[Session]] = {}
        self._last_id = 0
        self._old_recorders: list[Recorder] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()
        self._next_retry_s = 0.0

    def start(self, left: Sequence[Recorder] = ()) -> None:
        """Start the workers, and listen to them.

        Takes ownership of the flight recorders that another daemon has *left*: each worker goes
        on in that of its number, and the others can still be read.
        """
        loop = asyncio.get_running_loop()
        locking.keep_code(*HOT_LIBRARIES)
        self._old_recorders = list(left)
        for worker in self.workers:
            found = [each for each in self._old_recorders if each.number == worker.number]
            for recorder in found[:1]:
                self._old_recorders.remove(recorder)
            worker.start(found[0] if found else None)
            loop.add_reader(worker.report_fd, self._take_reports, worker)
        self._note_id(max(recorder.last_session for recorder in self.recorders))
        # Where there is no room for them, the next daemon does without.
        with contextlib.suppress(SessionError):
            self.custody.keep([recorder.fd for recorder in self.recorders])
        self._next_retry_s = loop.time() + RETRY_INTERVAL_S
        self._timer = loop.call_later(PROBE_INTERVAL_S, self._probe)

    @property
    def recorders(self) -> list[Recorder]:
        """What is on record, of now and of before."""
        own = [worker.recorder for worker in self.workers if worker.recorder is not None]
        return own + self._old_recorders

    def next_session_id(self) -> int:
        """Return a number for a new session, which nothing on record has."""
        self._note_id(self._last_id + 1)
        return self._last_id

    # In every recorder: each alone may be what is left.
    def _note_id(self, number: int) -> None:
        self._last_id = max(self._last_id, number)
        for recorder in self.recorders:
            recorder.last_session = self._last_id

    def check_new(self, name: str, fd: int) -> None:
        """Raise SessionError if the descriptor that is to be *name* has a session already, which
        would read its messages as well."""
        for session in self._by_identity.get(uffd.identity(fd), ()):
            if uffd.is_same(session.fd, fd):
                raise SessionError(
                    f"{name}: its descriptor is served already, as {session.name}: open another"
                )

    def attach(self, session: Session) -> None:
        """Serve *session* until it ends, with the worker that has the fewest; then close it."""
        self.sessions.add(session)
        self._by_identity.setdefault(uffd.identity(session.fd), set()).add(session)
        self._note_id(session.id)
        if session.pidfd is not None:
            asyncio.get_running_loop().add_reader(session.pidfd, self._exited, session)
        min(self.workers, key=lambda worker: len(worker.sessions)).attach(session)

    def abandon(self, session: Session) -> None:
        """Stop serving *session*: what is missing then, the kernel gives its process as zeros."""
        self._let_go(session, End.ABANDONED)

    def let_poll(self, max_ns: int) -> None:
        """Let workers ask for messages for at most so long before they sleep; 0: not at all."""
        for worker in self.workers:
            worker.pointer.max_poll_ns = max_ns

    def is_turning(self) -> bool:
        """Whether every worker has taken a turn since this was last called."""
        return all([worker.has_turned() for worker in self.workers])

    async def stop(self) -> None:
        """Abandon what is still being served, and end the workers."""
        while self.sessions:
            # Once more after each end: one that was forked may have come instead.
            for session in self.sessions:
                self.abandon(session)
            self._closed.clear()
            await self._closed.wait()
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self.custody.drop(recorder.fd for recorder in self.recorders)
        for worker in self.workers:
            loop.remove_reader(worker.report_fd)
            worker.stop()
        for recorder in self._old_recorders:
            recorder.close()

    def _take_reports(self, worker: Worker) -> None:
        reports, detached = worker.take_reports()
        for session, status in reports:
            self._handle(session, status)
        for session in detached:
            self._close(session)

    def _handle(self, session: Session, status: int) -> None:
        if status & lib.LPD_STATUS_TROUBLE:
            for trouble in session.take_troubles():
                session.hold(trouble)
                session.on_trouble(session, trouble)
        if status & lib.LPD_STATUS_FORKED:
            session.on_fork(session, session.pointer.child_fd)
        if status & lib.LPD_STATUS_DRAINED:
            self._let_go(session, End.DRAINED)
        if status & lib.LPD_STATUS_GONE:
            self._let_go(session, End.GONE)

    def _let_go(self, session: Session, end: End) -> None:
        if session.end is None:
            session.end = end
            session.request(lib.LPD_REQUEST_DETACH)

    def _exited(self, session: Session) -> None:
        # Its memory may live on in a process that shares it; asking the descriptor tells.
        self._forget_pidfd(session)
        if session.end is None and session.is_gone():
            self._let_go(session, End.GONE)

    def _forget_pidfd(self, session: Session) -> None:
        if session.pidfd is not None:
            asyncio.get_running_loop().remove_reader(session.pidfd)
            self.custody.drop([session.pidfd])
            session.close_pidfd()

    def _forget_identity(self, session: Session) -> None:
        identity = uffd.identity(session.fd)
        self._by_identity[identity].remove(session)
        if not self._by_identity[identity]:
            del self._by_identity[identity]

    def _close(self, session: Session) -> None:
        self._forget_pidfd(session)
        self.custody.drop([session.fd, session.state.fd])
        self.sessions.discard(session)
        self._forget_identity(session)
        session.close()
        self._closed.set()
        session.on_end(session)

    def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(PROBE_INTERVAL_S, self._probe)
        self._back_off()
        retry = loop.time() >= self._next_retry_s
        for session in self.sessions:
            if session.end is None and session.is_gone():
                self._let_go(session, End.GONE)
            elif retry and session.wants_retry:
                session.retry()
        if retry:
            self._next_retry_s = loop.time() + RETRY_INTERVAL_S

    def _back_off(self) -> None:
        paced = [session for session in self.sessions if session.state.pace.is_paced]
        # Nobody else minds.
        if paced and self.backoff.look():
            for session in paced:
                session.set_pace(session.state.pace, self.backoff.slowdown)
