"""One address space: a descriptor, its state, and what its worker says of it."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lazypagesd.engine.pace import Pace
from lazypagesd.engine.state import State
from lazypagesd.engine.statistics import Counters
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
    ) -> None:
        """Prepare a session.

        Takes ownership of *fd*, *state* and *pidfd*; borrows the sources' descriptors.
        """
        self.name = name
        self.fd = fd
        self.pidfd = pidfd
        self.state = state
        self.sources = tuple(sources)
        self.end: End | None = None
        self.worker: Worker | None = None
        self.final: Counters | None = None
        self.nr_children = 0
        self._leaving = False
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

    @property
    def counters(self) -> Counters:
        """What it did so far; after its end, what it did in all."""
        return self.final or Counters.read(self.state.pointer)

    @property
    def slowest_ns(self) -> int:
        """How long the fault took that took longest."""
        return int(self.state.pointer.counters.latency_max_ns)

    @property
    def wants_retry(self) -> bool:
        """Whether faults are held, or the drain has come to where it cannot go on."""
        return bool(self.pointer.stuck or self.state.pointer.counters.held)

    @property
    def has_channel(self) -> bool:
        """Whether its descriptor is a channel's, and no userfaultfd."""
        return int(self.state.pointer.protocol) != lib.LPD_PROTOCOL_UFFD_MSG

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
        self.state.set_pace(pace, slowdown)
        self.request(lib.LPD_REQUEST_DRAIN)

    def retry(self) -> None:
        """Let the faults that are held be tried again."""
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
