"""What tests of the service begin with: a daemon, processes that have handed their userfaultfds
over to the test, and images of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.service.serving import PAGE_SIZE, Client, Server, opening, regions_of, session
from tests.support.image import Image, wrong_pages
from tests.support.victim import Family, Victim

BASE = 0x100000000000

Runs = Sequence[tuple[int, int]]

# Runs of pages, (page counted from BASE, how many), in whose memory there are holes.
RUNS = ((0, 40), (50, 1), (60, 100))
NR_PAGES = 200  # of the memory


@dataclass(slots=True)
class Restored:
    """A process, the userfaultfd that it has given us, and its image, which is open."""

    victim: Victim
    fd: int
    image: Image
    file: int

    def check(self, page: int = 0, nr_pages: int = NR_PAGES) -> None:
        """See that pages are what they have to be, once no userfaultfd is left here."""
        self.close()
        addr = BASE + page * PAGE_SIZE
        seen = asyncio.run(self.victim.read(addr, nr_pages))
        assert wrong_pages(seen, self.image.bytes(addr, nr_pages)) == []

    def close(self) -> None:
        """Close the userfaultfd: where nobody serves it, who has a copy keeps pages waiting."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def nr_waiting(self) -> int:
        """Return how many threads wait for a page."""
        lines = Path(f"/proc/self/fdinfo/{self.fd}").read_text().splitlines()
        [line] = [line for line in lines if line.startswith("pending:")]
        return int(line.split()[1])


class Stage:
    """What a test needs; all of it ends with the test."""

    def __init__(self, directory: Path, program: Path, stack: ExitStack) -> None:
        self.directory = directory
        self._program = program
        self._stack = stack
        self._nr_images = 0

    def server(self, *options: str, times: dict[str, float] | None = None) -> Server:
        """Return a daemon."""
        server = Server(self.directory, *options, times=times)
        self._stack.callback(server.close)
        return server

    def restored(
        self,
        runs: Runs = RUNS,
        nr_pages: int = NR_PAGES,
        *,
        features: int = 0,
        flags: int = 0,
    ) -> Restored:
        """Return a process that nobody serves yet, its memory mapped with further *flags*, and its
        userfaultfd having further *features*."""
        self._nr_images += 1
        path = self.directory / f"pages-{self._nr_images}.img"
        image = Image(path, [(BASE + page * PAGE_SIZE, count) for page, count in runs])
        victim = self._stack.enter_context(Family(self._program, self.directory)).start()
        victim.open(features)
        victim.call("mmap", BASE, nr_pages * PAGE_SIZE, flags)
        victim.call("register", BASE, nr_pages * PAGE_SIZE)
        restored = Restored(victim, victim.hand_over(), image, os.open(path, os.O_RDONLY))
        self._stack.callback(restored.close)
        self._stack.callback(os.close, restored.file)
        return restored


@pytest.fixture
def stage(tmp_path: Path, victim_program: Path) -> Iterator[Stage]:
    """A stage of the test's own."""
    with ExitStack() as stack:
        yield Stage(tmp_path, victim_program, stack)


def handed_over(server: Server, restored: Restored) -> Client:
    """Return a client that has handed a process over, and has not finished."""
    client = server.client()
    client.do(opening())
    client.do(session(regions_of(restored.image)), restored.fd, restored.file)
    return client
