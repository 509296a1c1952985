"""Processes that have a channel and no userfaultfd, and what serves them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lazypagesd.kernel.channel import Api
from lazypagesd.proto import handoff_pb2 as pb
from tests.service.serving import PAGE_SIZE, Client, regions_of, session
from tests.service.stage import BASE, RUNS, Stage
from tests.support.image import Image, wrong_pages
from tests.support.victim import Family, Victim

NR_PAGES = 200


def at(page: int) -> int:
    """Return the address of a page, counted from BASE."""
    return BASE + page * PAGE_SIZE


@dataclass(slots=True)
class Channelled:
    """A process, the daemon's end of its channel, and its image, which is open."""

    victim: Victim
    fd: int
    image: Image
    file: int

    def begin_to_open(self, api: Api = Api.V2) -> None:
        """Let the process answer the exchange, whenever it comes."""
        self.victim.begin_aside("chserve" if api is Api.V2 else "chserve1")

    def opened(self, addr: int = BASE, nr_pages: int = NR_PAGES) -> None:
        """Let it go on with its memory registered, once it has answered."""
        self.victim.call("rejoin")
        self.victim.call("mmap", addr, nr_pages * PAGE_SIZE)
        self.victim.call("chregister", addr, nr_pages * PAGE_SIZE)
        self.close()

    def request(self, **fields: object) -> pb.Request:
        """Return what hands it over."""
        return session(regions_of(self.image), channel=True, **fields)

    def hand_over(self, client: Client, *, api: Api = Api.V2, **fields: object) -> None:
        """Hand it over, after which it runs."""
        self.begin_to_open(api)
        client.do(self.request(**fields), self.fd, self.file)
        self.opened()

    def read(self, page: int, nr_pages: int = 1) -> bytes:
        """Return pages as it sees them."""
        return asyncio.run(self.victim.read(at(page), nr_pages))

    def check(self, page: int = 0, nr_pages: int = NR_PAGES, *, origin: int | None = None) -> None:
        """See that pages are what they have to be; those that were moved, what *origin* was."""
        expected = self.image.bytes(at(page if origin is None else origin), nr_pages)
        assert wrong_pages(self.read(page, nr_pages), expected) == []

    def check_zero(self, page: int, nr_pages: int) -> None:
        """See that pages are zero."""
        assert wrong_pages(self.read(page, nr_pages), bytes(nr_pages * PAGE_SIZE)) == []

    def change(self) -> None:
        """Discard, unmap and move pages, of which some have been read and others have not."""
        self.check(0, 16)
        self.victim.call("chdiscard", at(8), 16 * PAGE_SIZE)
        self.victim.call("chmunmap", at(30), 20 * PAGE_SIZE)
        self.victim.call("mmap", at(30), 20 * PAGE_SIZE)
        self.victim.call("chmremap", at(100), 50 * PAGE_SIZE, at(1000))
        self.check(1020, 5, origin=120)

    def check_changed(self) -> None:
        """See that all of it is what it has to be then."""
        self.check(0, 8)
        self.check_zero(8, 16)
        self.check(24, 6)
        self.check_zero(30, 20)
        self.check(50, 50)
        self.check(1000, 50, origin=100)
        self.check(150, 50)

    def fork(self) -> Channelled:
        """Return a child of it."""
        return Channelled(asyncio.run(self.victim.fork()), -1, self.image, self.file)

    def close(self) -> None:
        """Close the daemon's end."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ChannelStage(Stage):
    """What a test needs; all of it ends with the test."""

    def __init__(
        self, directory: Path, program: Path, stack: ExitStack, prefix: Sequence[str | Path]
    ) -> None:
        super().__init__(directory, program, stack)
        self._prefix = prefix

    def family(self) -> Family:
        """Return a family that may have no userfaultfd."""
        family = Family(self._program, self.directory, prefix=self._prefix)
        return self._stack.enter_context(family)

    def channelled(self) -> Channelled:
        """Return a process that has a channel, which nobody has asked at."""
        return self.of(*self.unopened())

    def unopened(self) -> tuple[Victim, int]:
        """Return a process and the daemon's end of its channel."""
        victim = self.family().start()
        with pytest.raises(PermissionError):
            victim.open()
        victim.call("chopen")
        return victim, victim.hand_over()

    def of(self, victim: Victim, fd: int) -> Channelled:
        """Give it an image."""
        image = self.image()
        process = Channelled(victim, fd, image, os.open(image.path, os.O_RDONLY))
        self._stack.callback(os.close, process.file)
        self._stack.callback(process.close)
        return process

    def image(self) -> Image:
        """Make an image like that of every process here."""
        self._nr_images += 1
        path = self.directory / f"pages-{self._nr_images}.img"
        return Image(path, [(at(page), count) for page, count in RUNS])

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return a channel whose process the test is: its end, and the daemon's."""
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.settimeout(20)
        self._stack.enter_context(theirs)
        self._stack.enter_context(ours)
        return theirs, ours


@pytest.fixture
def channels(tmp_path: Path, victim_program: Path, confine: Path) -> Iterator[ChannelStage]:
    """A stage of the test's own, whose processes are confined."""
    with ExitStack() as stack:
        yield ChannelStage(tmp_path, victim_program, stack, [confine])
