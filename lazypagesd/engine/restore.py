"""One hand-off: the sessions of a process tree, and the children that they fork meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Protocol

from lazypagesd.engine.engine import Engine
from lazypagesd.engine.pace import EAGER, Pace
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.restore_record import RestoreRecord, session_fds_of
from lazypagesd.engine.session import End, Session, Trouble
from lazypagesd.engine.state import State
from lazypagesd.errors import LazyPagesError
from lazypagesd.images.pagemap import PageMap
from lazypagesd.kernel import channel, fdpass
from lazypagesd.native import lib
from lazypagesd.sources.file import FileSource, Kind

# How long a fork waits when its child cannot be given a session, before that is tried again.
FORK_RETRY_S = 1.0


class Observer(Protocol):
    """Who is told what happens to a restore; called in the control plane's thread."""

    def session_ended(self, session: Session) -> None:
        """Say that *session* has ended, how being *session.end*."""

    def session_in_trouble(self, session: Session, trouble: Trouble) -> None:
        """Say that a page cannot be filled, and that whoever touches it waits."""

    def fork_delayed(self, session: Session, error: Exception) -> None:
        """Say that a child cannot be served yet, so that parent and child wait."""


class Restore:
    """The sessions of one hand-off, from the first descriptor to the last page."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        observer: Observer,
        pace: Pace = EAGER,
        *,
        number: int = 0,
        owner: int = 0,
        began_usec: int = 0,
        paused: bool = False,
    ) -> None:
        """Prepare a restore without sessions.

        *name* is what people are told, and has the *number*; *owner* is the user whose it is, and
        *began_usec* when it was begun, since 1970.
        """
        self.name = name
        self.number = number
        self.owner = owner
        self.began_usec = began_usec
        self.paused = paused
        self.record: RestoreRecord | None = None  # for the daemon that comes next
        self.pace = pace
        self.sessions: list[Session] = []
        self._names: set[str] = set()  # of all of these
        self._live: dict[Session, None] = {}  # of these, in their order
        self.released = False
        self._complete = False
        self._abandoned = False
        self._kept: set[int] = set()  # files, in custody
        self._engine = engine
        self._observer = observer
        self._ended = asyncio.Event()

    def add(
        self,
        name: str,
        fd: int,
        page_map: PageMap,
        sources: Sequence[FileSource],
        *,
        pidfd: int | None,
        protocol: int = lib.LPD_PROTOCOL_UFFD_MSG,
        image_pid: int | None = None,
    ) -> Session:
        """Serve a descriptor from now on, faults only.  Takes ownership of *fd* and *pidfd*.

        *protocol* says what the descriptor is: LPD_PROTOCOL_..., and stays so for every child;
        *image_pid* which process of CRIU's images it is.  When this returns the session outlives
        the daemon, if anything does.  Raises SessionError if it is being served already, or
        cannot be kept.
        """
        record = self._record(name, fd, sources, pidfd=pidfd, image_pid=image_pid)
        with contextlib.ExitStack() as undo:
            undo.callback(fdpass.close_all, session_fds_of(record))
            self._engine.check_new(name, fd)
            state = State.create(
                name,
                page_map.regions,
                page_map.nr_regions,
                page_map.nr_pages,
                len(sources),
                protocol=protocol,
                record_size=record.ByteSize(),
            )
            undo.callback(state.close)
            state.set_pace(self.pace, self._engine.backoff.slowdown, paused=self.paused)
            self._keep(state, record)
            undo.pop_all()
        return self._attach(Session(name, fd, state, sources, pidfd=pidfd, id=record.id))

    def take_over(self, state: State, record: record_pb2.Session) -> Session:
        """Go on with a session that another daemon has left.  Takes ownership of *state*, and of
        what *record* names."""
        sources = [FileSource(s.name, s.fd, s.size, Kind(s.kind)) for s in record.sources]
        pidfd = record.pidfd if record.HasField("pidfd") else None
        session = Session(record.name, record.fd, state, sources, pidfd=pidfd, id=record.id)
        session.nr_children = session.counters.events_fork
        self._kept.update(source.fd for source in sources)
        self._attach(session)
        # What was read, and not answered, is to be faulted anew.
        session.retry()
        return session

    def let_go(self) -> None:
        """Leave nothing of it to the next daemon: it has ended."""
        self._engine.custody.drop(self._kept)
        self._kept.clear()
        if self.record is not None:
            self.record.close()
            self.record = None

    def check_new(self, name: str, fd: int) -> None:
        """Raise SessionError if the descriptor that is to be *name* is being served already."""
        self._engine.check_new(name, fd)

    def release(self) -> None:
        """Fill what is missing from now on, at its pace: the restore tool has finished."""
        self.released = self._complete = True
        if self.record is not None:
            self.record.message.released = True
            self.record.save()
        for session in self.live:
            session.drain()
        self._check_ended()

    def set_pace(self, pace: Pace) -> None:
        """Fill what nobody waits for at another pace, at once; children inherit it."""
        self.pace = pace
        if self.record is not None:
            self.record.message.pace = pace.rate
            self.record.save()
        self._apply_pace()

    def pause(self) -> None:
        """Fill nothing unasked until resume(), whatever its pace."""
        self._set_paused(paused=True)

    def resume(self) -> None:
        """Fill at its pace again."""
        self._set_paused(paused=False)

    def _set_paused(self, *, paused: bool) -> None:
        self.paused = paused
        if self.record is not None:
            self.record.message.paused = paused
            self.record.save()
        for session in self.live:
            session.paused = paused
        self._apply_pace()

    def _apply_pace(self) -> None:
        for session in self.live:
            session.set_pace(self.pace, self._engine.backoff.slowdown)

    def fail(self) -> None:
        """Answer faults until its processes have been killed, so that no thread reads a zero."""
        self._complete = True
        self._check_ended()

    def abandon(self) -> None:
        """Serve none of it any more, whatever is missing."""
        self._complete = self._abandoned = True
        for session in self.live:
            self._engine.abandon(session)
        self._check_ended()

    @property
    def failed(self) -> bool:
        """Whether its hand-off was not finished, or it was given up."""
        return not self.released or self._abandoned

    @property
    def bytes_filled(self) -> int:
        """How many bytes were filled so far, of all its sessions."""
        return sum(session.bytes_filled for session in self.sessions)

    async def wait_ended(self) -> None:
        """Wait until its hand-off is over, however, and each of its sessions has ended."""
        await self._ended.wait()

    def has_session(self, name: str) -> bool:
        """Whether one of its sessions is, or was, called *name*."""
        return name in self._names

    @property
    def live(self) -> list[Session]:
        """The sessions that have not ended."""
        return list(self._live)

    @property
    def nr_missing(self) -> int:
        """How many pages its live sessions still wait for."""
        return sum(session.state.nr_missing for session in self.live)

    def _attach(self, session: Session) -> Session:
        session.on_fork = self._forked
        session.on_end = self._session_ended
        session.on_trouble = self._observer.session_in_trouble
        # What its state says already.
        session.paused = self.paused
        self.sessions.append(session)
        self._names.add(session.name)
        self._live[session] = None
        self._engine.attach(session)
        return session

    def _forked(self, parent: Session, child_fd: int) -> None:
        # Those that are forked from what is abandoned are so too; a userfaultfd comes from the
        # kernel, and a channel from a process, which may say anything.
        abandoned = self._abandoned or parent.end is End.ABANDONED
        if abandoned or (parent.has_channel and channel.reason_against(child_fd)):
            parent.state.disown(child_fd)
            os.close(child_fd)
            parent.pointer.child_id = 0
        elif not self._adopt(parent, child_fd):
            # Neither may go on without it: the child would read zeros.
            again: Callable[[Session, int], None] = self._forked
            asyncio.get_running_loop().call_later(FORK_RETRY_S, again, parent, child_fd)
            return
        parent.request(lib.LPD_REQUEST_RESUME)

    # False if the child cannot be served yet.
    def _adopt(self, parent: Session, child_fd: int) -> bool:
        name = f"{parent.name}.{parent.nr_children + 1}"
        # The kernel gave the child's descriptor the parent's flags, but O_CLOEXEC.
        os.set_inheritable(child_fd, False)
        record = self._record(name, child_fd, parent.sources)
        with contextlib.ExitStack() as undo:
            try:
                state = parent.state.fork(name, child_fd, record_size=record.ByteSize())
                undo.callback(state.close)
                self._keep(state, record)
            except (LazyPagesError, OSError) as error:
                self._observer.fork_delayed(parent, error)
                return False
            undo.pop_all()
        parent.nr_children += 1
        # From here on the child is found by its state, and no more by the message.
        parent.state.disown(child_fd)
        self._attach(Session(name, child_fd, state, parent.sources, id=record.id))
        parent.pointer.child_id = record.id
        return True

    # ---- what a next daemon will know ----

    def _record(
        self,
        name: str,
        fd: int,
        sources: Sequence[FileSource],
        *,
        pidfd: int | None = None,
        image_pid: int | None = None,
    ) -> record_pb2.Session:
        return record_pb2.Session(
            restore=self.number,
            name=name,
            fd=fd,
            pidfd=pidfd,
            sources=[
                record_pb2.Source(fd=s.fd, kind=s.kind, size=s.size, name=s.name) for s in sources
            ],
            image_pid=image_pid,
            id=self._engine.next_session_id(),
        )

    def _keep(self, state: State, record: record_pb2.Session) -> None:
        state.record.write(record.SerializeToString())
        files = {source.fd for source in record.sources}
        self._engine.custody.keep([*session_fds_of(record), state.fd, *(files - self._kept)])
        self._kept |= files

    def _session_ended(self, session: Session) -> None:
        del self._live[session]
        self._observer.session_ended(session)
        self._check_ended()

    def _check_ended(self) -> None:
        if self._complete and not self._live:
            self._ended.set()
