"""One hand-off: the sessions of a process tree, and the children that they fork meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Protocol

from lazypagesd.engine.engine import Engine
from lazypagesd.engine.pace import EAGER, Pace
from lazypagesd.engine.session import End, Session, Trouble
from lazypagesd.engine.state import State
from lazypagesd.errors import LazyPagesError
from lazypagesd.images.pagemap import PageMap
from lazypagesd.native import lib
from lazypagesd.sources.file import FileSource

# How long a fork waits when its child cannot be given a session, before that is tried again.
FORK_RETRY_S = 1.0


class Observer(Protocol):
    """Who is told what happens to a restore; called in the control plane's thread."""

    def session_ended(self, session: Session) -> None:
        """Say that *session* has ended, how being *session.end*."""

    def session_in_trouble(self, session: Session, trouble: Trouble) -> None:
        """Say that a page cannot be filled, and that whoever touches it waits."""

    def fork_delayed(self, session: Session, error: OSError) -> None:
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
    ) -> None:
        """Prepare a restore without sessions.

        *name* is what people are told, and has the *number*; *owner* is the user whose it is.
        """
        self.name = name
        self.number = number
        self.owner = owner
        self.pace = pace
        self.sessions: list[Session] = []
        self.released = False
        self._complete = False
        self._abandoned = False
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
    ) -> Session:
        """Serve a descriptor from now on, faults only.  Takes ownership of *fd* and *pidfd*.

        *protocol* says what the descriptor is: LPD_PROTOCOL_..., and stays so for every child.
        Raises SessionError if it is being served already.
        """
        try:
            self._engine.check_new(name, fd)
            state = State.create(
                name,
                page_map.regions,
                page_map.nr_regions,
                page_map.nr_pages,
                len(sources),
                protocol=protocol,
            )
        except (LazyPagesError, OSError):
            os.close(fd)
            if pidfd is not None:
                os.close(pidfd)
            raise
        state.set_pace(self.pace, self._engine.backoff.slowdown)
        return self._attach(Session(name, fd, state, sources, pidfd=pidfd))

    def release(self) -> None:
        """Fill what is missing from now on, at its pace: the restore tool has finished."""
        self.released = self._complete = True
        for session in self.live:
            session.drain()
        self._check_ended()

    def set_pace(self, pace: Pace) -> None:
        """Fill what nobody waits for at another pace, at once; children inherit it."""
        self.pace = pace
        for session in self.live:
            session.set_pace(pace, self._engine.backoff.slowdown)

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

    async def wait_ended(self) -> None:
        """Wait until its hand-off is over, however, and each of its sessions has ended."""
        await self._ended.wait()

    @property
    def live(self) -> list[Session]:
        """The sessions that have not ended."""
        return [session for session in self.sessions if session.final is None]

    @property
    def nr_missing(self) -> int:
        """How many pages its live sessions still wait for."""
        return sum(session.state.nr_missing for session in self.live)

    def _attach(self, session: Session) -> Session:
        session.on_fork = self._forked
        session.on_end = self._session_ended
        session.on_trouble = self._observer.session_in_trouble
        self.sessions.append(session)
        self._engine.attach(session)
        return session

    def _forked(self, parent: Session, child_fd: int) -> None:
        if self._abandoned or parent.end is End.ABANDONED:  # and so are those that it forks
            os.close(child_fd)
            parent.request(lib.LPD_REQUEST_RESUME)
            return
        name = f"{parent.name}.{parent.nr_children + 1}"
        try:
            state = parent.state.fork(name, child_fd)
        except OSError as error:
            # Neither may go on without it: the child would read zeros.
            self._observer.fork_delayed(parent, error)
            again: Callable[[Session, int], None] = self._forked
            asyncio.get_running_loop().call_later(FORK_RETRY_S, again, parent, child_fd)
            return
        parent.nr_children += 1
        # The kernel gave the child's descriptor the parent's flags, but O_CLOEXEC.
        os.set_inheritable(child_fd, False)
        self._attach(Session(name, child_fd, state, parent.sources))
        parent.request(lib.LPD_REQUEST_RESUME)

    def _session_ended(self, session: Session) -> None:
        self._observer.session_ended(session)
        self._check_ended()

    def _check_ended(self) -> None:
        if self._complete and not self.live:
            self._ended.set()
