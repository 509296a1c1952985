"""A bed: an engine in the test's loop, a restore, and the victims that it fills."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from lazypagesd.engine.engine import Engine
from lazypagesd.engine.restore import Restore
from lazypagesd.engine.session import End, Session, Trouble
from lazypagesd.engine.statistics import Counters
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.kernel.channel import Api, Type, ask, protocol_of, understand
from lazypagesd.native import lib
from lazypagesd.sources.file import FileSource, Kind
from tests.native.waiting import is_asleep
from tests.support.descriptors import descriptors
from tests.support.image import Image, wrong_pages
from tests.support.victim import DEADLINE_S, Family, Victim

# Where nothing else of a process ever is.
BASE = 0x100000000000

Runs = Sequence[tuple[int, int]]


def at(page: int) -> int:
    """Return the address of a page, counted from BASE."""
    return BASE + page * PAGE_SIZE


class Bed:
    """What a test of the engine needs, from the victim to the observer of the restore; when the
    test ends, everything must add up and no descriptor be left."""

    def __init__(self, program: Path, directory: Path, nr_workers: int = 1) -> None:
        self.engine = Engine(nr_workers)
        self.restore = Restore("test", self.engine, self)
        self.troubles: list[Trouble] = []
        self.delays: list[Exception] = []
        self.roots: list[Session] = []
        self._program = program
        self._directory = directory
        self._stack = ExitStack()
        self._nr_images = 0

    async def __aenter__(self) -> Self:
        self._fds_before = descriptors()
        self.engine.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # First of all: a victim that hangs keeps a thread waiting for its answer.
        self._stack.close()
        async with asyncio.timeout(DEADLINE_S):
            await self.engine.stop()
        if exc_info[0] is None:
            assert descriptors() == self._fds_before
            for session in self.roots:
                assert accounted(session.counters) == session.counters.nr_pages

    def new_userfaultfds(self) -> list[str]:
        """Return the userfaultfds that are open, and were not when the test began."""
        now = {fd for fd, what in descriptors().items() if what == "anon_inode:[userfaultfd]"}
        return sorted(now - self._fds_before.keys())

    # ---- before it is served ----

    def image(self, *runs: tuple[int, int]) -> Image:
        """Make an image of runs of pages, (page counted from BASE, how many)."""
        self._nr_images += 1
        path = self._directory / f"pages-{self._nr_images}.img"
        return Image(path, [(at(page), nr_pages) for page, nr_pages in runs])

    def victim(self, *runs: tuple[int, int], features: int = 0, flags: int = 0) -> Victim:
        """Start a process that has mapped and registered runs of pages, with further *flags* of
        mmap(2), its userfaultfd having further *features*."""
        victim = self._stack.enter_context(Family(self._program, self._directory)).start()
        victim.open(features)
        for page, nr_pages in runs:
            victim.call("mmap", at(page), nr_pages * PAGE_SIZE, flags)
            victim.call("register", at(page), nr_pages * PAGE_SIZE)
        return victim

    def channel_to_open(self) -> tuple[Victim, socket.socket]:
        """Start a process that is opening a channel, and return that as well."""
        victim = self._stack.enter_context(Family(self._program, self._directory)).start()
        victim.call("chopen")
        channel = self._stack.enter_context(socket.socket(fileno=victim.hand_over()))
        channel.settimeout(DEADLINE_S)
        victim.begin_aside("chserve")
        return victim, channel

    def channel(self, *runs: tuple[int, int], api: Api = Api.V2) -> tuple[Victim, socket.socket]:
        """Start a process whose memory is filled over a channel, and return that as well."""
        victim, channel = self.channel_to_open()
        negotiate(channel, api)
        victim.call("rejoin")
        for page, nr_pages in runs:
            victim.call("mmap", at(page), nr_pages * PAGE_SIZE)
            victim.call("chregister", at(page), nr_pages * PAGE_SIZE)
        return victim, channel

    def serve_channel(self, maps: Runs, runs: Runs, *, api: Api = Api.V2) -> tuple[Victim, Image]:
        """Do as serve(), over a channel."""
        (victim, channel), image = self.channel(*maps, api=api), self.image(*runs)
        self.attach(victim, image, fd=channel.detach(), protocol=protocol_of(api))
        return victim, image

    def attach(
        self,
        victim: Victim,
        image: Image,
        *,
        fd: int | None = None,
        pidfd: bool = False,
        source: FileSource | None = None,
        protocol: int = lib.LPD_PROTOCOL_UFFD_MSG,
    ) -> Session:
        """Fill the victim from the image from now on; its bytes may come from another source."""
        return self.attach_fd(
            victim.hand_over() if fd is None else fd,
            image,
            pidfd=os.pidfd_open(victim.pid) if pidfd else None,
            source=source,
            protocol=protocol,
        )

    def attach_fd(
        self,
        fd: int,
        image: Image,
        *,
        pidfd: int | None = None,
        source: FileSource | None = None,
        protocol: int = lib.LPD_PROTOCOL_UFFD_MSG,
    ) -> Session:
        """Do the same for whoever is behind a descriptor."""
        session = self.restore.add(
            f"victim-{len(self.roots)}",
            fd,
            image.page_map(),
            [source or self.source(image)],
            pidfd=pidfd,
            protocol=protocol,
        )
        self.roots.append(session)
        return session

    def serve(self, maps: Runs, runs: Runs, *, released: bool = False) -> tuple[Victim, Image]:
        """Do all of it: a process with *maps*, an image with *runs*, and the one filled from the
        other."""
        victim, image = self.victim(*maps), self.image(*runs)
        self.attach(victim, image)
        if released:
            self.restore.release()
        return victim, image

    def blocking_source(self, image: Image) -> FileSource:
        """Return the image's file as one that every read of may wait for."""
        return replace(self.source(image), kind=Kind.BLOCKING)

    def source(self, image: Image) -> FileSource:
        """Return the image's file."""
        fd = os.open(image.path, os.O_RDONLY)
        self._stack.callback(os.close, fd)
        return FileSource.of(fd, image.path.name)

    # ---- while it is served ----

    @property
    def session(self) -> Session:
        """The session of the first victim."""
        return self.roots[0]

    @property
    def counters(self) -> Counters:
        """What that session did."""
        return self.session.counters

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until *is_so*."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not is_so():  # noqa: ASYNC110 (it happens in a process or in C)
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"waited in vain: {what}") from None

    async def until_counted(self, session: Session | None = None, **expected: int) -> None:
        """Wait until a session has counted so much: a fill wakes whom it is for, and counts
        then."""
        session = session or self.session
        try:
            async with asyncio.timeout(DEADLINE_S):
                while counted(session, expected) != expected:  # noqa: ASYNC110 (C counts)
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"{counted(session, expected)} is not {expected}") from None

    async def until_waiting(self, fd: int, nr_threads: int = 1, *, pid: int | None = None) -> None:
        """Wait until so many threads wait for pages at a descriptor, of this process or another,
        that nobody serves."""
        info = Path(f"/proc/{pid or os.getpid()}/fdinfo/{fd}")
        wanted = f"pending:\t{nr_threads}\n"
        await self.until(lambda: wanted in info.read_text(), "threads at pages")

    async def until_asleep(self) -> None:
        """Wait until the first worker sleeps because it has nothing to do for a while."""
        worker = self.engine.workers[0]
        await self.until(lambda: is_asleep(worker), "a worker asleep")

    async def until_changing(self, fd: int) -> None:
        """Wait until an event waits to be read from a descriptor that nobody serves."""
        await self.until(lambda: lib.lpd_uffd_probe(fd) == -errno.EAGAIN, "an event")

    async def until_ended(self, session: Session, end: End) -> None:
        """Wait until a session is over, and look how."""
        await self.until(lambda: session.final is not None, f"end of {session.name}")
        assert session.end is end

    async def release(self, end: End = End.DRAINED) -> None:
        """Let the rest be filled, and wait until every session has ended so."""
        self.restore.release()
        async with asyncio.timeout(DEADLINE_S):
            await self.restore.wait_ended()
        assert {session.end for session in self.restore.sessions} == {end}

    # ---- what the restore tells ----

    def session_ended(self, session: Session) -> None:
        assert session.final is not None

    def session_in_trouble(self, session: Session, trouble: Trouble) -> None:
        self.troubles.append(trouble)

    def fork_delayed(self, session: Session, error: Exception) -> None:
        self.delays.append(error)


def negotiate(channel: socket.socket, api: Api) -> Type | None:
    """Ask a process, and wait for its answer."""
    ask(channel, api)
    return understand(api, channel.recv(64))


def counted(session: Session, names: Iterable[str]) -> dict[str, int]:
    """Return the counters with these names."""
    return {name: getattr(session.counters, name) for name in names}


def accounted(counters: Counters) -> int:
    """Return the pages of whose fate the counters tell."""
    return (
        counters.nr_missing
        + counters.pages_fault
        + counters.pages_neighbour
        + counters.pages_drain
        + counters.pages_present
        + counters.pages_dropped
    )


async def check(victim: Victim, image: Image, page: int, nr_pages: int = 1) -> None:
    """Look at pages at the addresses that they have in the image."""
    assert (
        wrong_pages(await victim.read(at(page), nr_pages), image.bytes(at(page), nr_pages)) == []
    )


async def check_zero(victim: Victim, page: int, nr_pages: int = 1) -> None:
    """Look at pages that have to be zero."""
    assert wrong_pages(await victim.read(at(page), nr_pages), bytes(nr_pages * PAGE_SIZE)) == []


async def check_moved(
    victim: Victim, image: Image, page: int, nr_pages: int, *, origin: int
) -> None:
    """Look at pages that the image has at *origin*."""
    expected = image.bytes(at(origin), nr_pages)
    assert wrong_pages(await victim.read(at(page), nr_pages), expected) == []
