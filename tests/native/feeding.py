"""Sessions that are fed their messages.

Through a pipe, which stands for the userfaultfd, or with what was read laid out in the state: the
order in which threads come to queue their events cannot be made certain, that of these can.
"""

from __future__ import annotations

import fcntl
import os
import struct

from lazypagesd.engine.session import Session
from lazypagesd.engine.state import State
from lazypagesd.engine.worker import Worker
from lazypagesd.native import ffi, lib
from tests.native.states import BASE, PAGE, Region, bits_of, c_regions, nr_pages_of, regions_of
from tests.native.waiting import wait_readable, wait_until

FORK, REMAP, REMOVE, UNMAP = 0x13, 0x14, 0x15, 0x16  # linux/userfaultfd.h
SIZE = 2 * PAGE

# Three places, of which two have image pages: X those of bits 0 and 1, Z those of 2 and 3.
X, Y, Z = BASE, BASE + 8 * PAGE, BASE + 16 * PAGE
IN_X, IN_Z = Region(X, 2, 0, 0), Region(Z, 2, SIZE, 2)


def message(event: int, *arguments: int) -> bytes:
    """Return a struct uffd_msg."""
    return struct.pack("B7x3Q", event, *arguments, *(0,) * (3 - len(arguments)))


def moved(region: Region, to: int) -> Region:
    return region._replace(start=to)


class Fed:
    """A session that has *messages* to read at once, after those that *were_read*, and no address
    space."""

    def __init__(
        self,
        worker: Worker,
        regions: list[Region],
        messages: list[bytes],
        *,
        were_read: list[bytes] | None = None,
    ) -> None:
        self._worker = worker
        state = State.create("fed", c_regions(regions), len(regions), nr_pages_of(regions), 1)
        readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        data = b"".join(messages)
        fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, max(len(data), PAGE))
        assert os.write(writable, data) == len(data)
        before = b"".join(were_read or [])
        ffi.buffer(state.pointer.messages)[: len(before)] = before
        # Each by a read of its own.
        state.pointer.read_starts[0] = (1 << len(were_read or [])) - 1
        self.session = Session("fed", readable, state, [])
        self._writable = writable
        worker.attach(self.session)

    def __enter__(self) -> Fed:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._writable)
        self.session.close()

    @property
    def bits(self) -> list[int]:
        return bits_of(self.session.state.pointer)

    def regions(self) -> list[Region]:
        return regions_of(self.session.state.pointer)

    def wait_for_fork(self) -> None:
        """Wait until the session has paused for a FORK."""
        wait_readable(self._worker.report_fd, "the fork's report")
        [(session, status)], _ = self._worker.take_reports()
        assert (session, status) == (self.session, lib.LPD_STATUS_FORKED)

    def finish(self) -> None:
        """Let every message take effect, and have the session for oneself."""
        self.session.request(lib.LPD_REQUEST_RESUME | lib.LPD_REQUEST_DETACH)
        detached: list[Session] = []
        while not detached:
            wait_readable(self._worker.report_fd, "the detached session")
            _, detached = self._worker.take_reports()


def served(worker: Worker, regions: list[Region], *messages: bytes, apart: bool = False) -> Fed:
    """Return a session on which all *messages* have taken effect: as one read has brought them,
    or each one *apart*."""
    fed = Fed(worker, regions, [] if apart else list(messages), were_read=[*messages] * apart)
    fed.finish()
    return fed


class Quiet:
    """A session with messages that were read from a real userfaultfd, as far as it can tell: at
    once, or each one *apart*."""

    def __init__(
        self, worker: Worker, uffd: int, region: Region, *messages: bytes, apart: bool = False
    ) -> None:
        state = State.create("quiet", c_regions([region]), 1, region.nr_pages, 1)
        self.session = Session("quiet", uffd, state, [])
        self.session.pointer.nr_messages = len(messages)
        if apart:
            state.pointer.read_starts[0] = 2**64 - 1
        size = len(b"".join(messages))
        ffi.buffer(state.pointer.messages)[:size] = b"".join(messages)
        worker.attach(self.session)
        nr_moves = sum(message[0] == REMAP for message in messages)
        wait_until(lambda: self.session.counters.events_remap == nr_moves, "the events")

    def bits(self, worker: Worker) -> list[int]:
        """Return what became of the pages; the session is over then."""
        found = bits_of(self.session.state.pointer)
        self.session.request(lib.LPD_REQUEST_DETACH)
        detached: list[Session] = []
        while not detached:
            wait_readable(worker.report_fd, "the detached session")
            _, detached = worker.take_reports()
        self.session.close()
        return found


def events(uffd: int, n: int) -> list[tuple[int, ...]]:
    """Read *n* events: (event, three arguments)."""
    raw = b""
    while len(raw) < n * 32:
        wait_readable(uffd, f"{n} events")
        raw += os.read(uffd, n * 32 - len(raw))
    return [(raw[at], *struct.unpack_from("3Q", raw, at + 8)) for at in range(0, len(raw), 32)]
