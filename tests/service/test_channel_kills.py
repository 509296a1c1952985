"""A daemon that is killed at random, again and again, while processes with channels change."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import pytest

from lazypagesd.kernel.channel import Api
from lazypagesd.proto import handoff_pb2 as pb
from tests.service.channelled import Channelled, ChannelStage, at
from tests.service.manager import Manager, Numbered
from tests.service.scene import LAZY
from tests.service.serving import FINISHED, PAGE_SIZE, PROGRESS, RELEASE, opening
from tests.service.test_channel import NEVER
from tests.support.image import Image, wrong_pages
from tests.support.victim import confine, victim_program

__all__ = ["confine", "victim_program"]

pytestmark = pytest.mark.uffd

NR_KILLS = 10
MOST_STEPS_BETWEEN = 12
NR_BLOCKS = 256
BLOCK = 16  # pages
FAR = 10_000
# Of a process: each may cut a range in two, of which there can be 256.
MOST_CUTS = 80
NR_FORKS = 4


class Life:
    """A process, and what each of its pages has to be: what page of the image, or zero."""

    def __init__(
        self,
        process: Channelled,
        pages: dict[int, int | None],
        blocks: list[int],
        rng: random.Random,
    ) -> None:
        self.process = process
        self._pages = pages
        self._blocks = blocks  # that have not been touched
        self._rng = rng
        self._nr_cuts = 0

    @classmethod
    def begin(cls, process: Channelled, rng: random.Random) -> Self:
        """Return the life of a process whose pages are those of the image."""
        blocks = list(range(NR_BLOCKS))
        rng.shuffle(blocks)
        return cls(process, {page: page for page in range(NR_BLOCKS * BLOCK)}, blocks, rng)

    def fork(self) -> Life:
        """Return a child's, which goes on by itself."""
        child = Life(self.process.fork(), dict(self._pages), list(self._blocks), self._rng)
        child._nr_cuts = self._nr_cuts
        return child

    def step(self, *, changes: bool = True) -> None:
        """Do something with a block, or a part of it, and look at it then."""
        if not self._blocks:
            return
        first = self._blocks.pop() * BLOCK
        start = self._rng.randrange(first, first + BLOCK)
        end = self._rng.randrange(start, first + BLOCK) + 1
        deeds: list[Callable[[int, int], None]] = [self._read]
        if changes:
            deeds.append(self._discard)
        if changes and self._nr_cuts < MOST_CUTS:
            deeds += [self._unmap, self._move]
        if self._rng.random() < 0.5:
            self.check(range(first, first + BLOCK))
        self._rng.choice(deeds)(start, end)
        if self._rng.random() < 0.5:
            self.check(range(first, first + BLOCK))

    def _read(self, start: int, end: int) -> None:
        victim = self.process.victim
        victim.begin_reading(at(start), end - start, nr_threads=8)
        expected = b"".join(map(self._bytes, range(start, end)))
        assert wrong_pages(asyncio.run(victim.end_reading()), expected * 8) == []

    def _discard(self, start: int, end: int) -> None:
        self.process.victim.call("chdiscard", at(start), (end - start) * PAGE_SIZE)
        self._pages.update(dict.fromkeys(range(start, end)))

    def _unmap(self, start: int, end: int) -> None:
        self.process.victim.call("chmunmap", at(start), (end - start) * PAGE_SIZE)
        self._map_anew(start, end)

    def _move(self, start: int, end: int) -> None:
        size = (end - start) * PAGE_SIZE
        self.process.victim.call("chmremap", at(start), size, at(FAR + start))
        self._pages.update({FAR + page: self._pages[page] for page in range(start, end)})
        self._map_anew(start, end)
        self.check(range(FAR + start, FAR + end))

    def _map_anew(self, start: int, end: int) -> None:
        self.process.victim.call("mmap", at(start), (end - start) * PAGE_SIZE)
        self._pages.update(dict.fromkeys(range(start, end)))
        self._nr_cuts += 1

    def _bytes(self, page: int) -> bytes:
        origin = self._pages[page]
        return bytes(PAGE_SIZE) if origin is None else self.process.image.bytes(at(origin), 1)

    def check(self, pages: range) -> None:
        """See that pages that lie side by side are what they have to be."""
        expected = b"".join(map(self._bytes, pages))
        assert wrong_pages(self.process.read(pages.start, len(pages)), expected) == []

    def check_all(self) -> None:
        """See that every page is."""
        self.check(range(NR_BLOCKS * BLOCK))
        for page in self._pages:
            if page >= FAR:
                self.check(range(page, page + 1))


class Kills:
    """A thread that kills the daemon so many steps after it was ready, and starts the next."""

    def __init__(self, manager: Manager, rng: random.Random) -> None:
        self._manager = manager
        self._intervals = [rng.randrange(MOST_STEPS_BETWEEN) for _ in range(NR_KILLS)]
        self._nr_steps = 0
        self._stepped = threading.Condition()
        self._thread = threading.Thread(target=self._run)
        self._is_stopped = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._stepped:
            self._is_stopped = exc_info[0] is not None
            self._stepped.notify()
        self._thread.join()

    @property
    def are_over(self) -> bool:
        """Whether the last one has been followed."""
        return not self._thread.is_alive()

    def step(self) -> None:
        """Count a step."""
        with self._stepped:
            self._nr_steps += 1
            self._stepped.notify()

    def _run(self) -> None:
        for interval in self._intervals:
            with self._stepped:
                until = self._nr_steps + interval
                self._stepped.wait_for(lambda until=until: self._is_past(until))  # type: ignore[misc]
            if self._is_stopped:
                return
            self._manager.kill_and_restart()

    def _is_past(self, nr_steps: int) -> bool:
        return self._is_stopped or self._nr_steps >= nr_steps


class BigStage(ChannelStage):
    """A stage with processes of more pages."""

    def image(self) -> Image:
        path = self.directory / "pages.img"
        return Image(path, [(at(0), NR_BLOCKS * BLOCK)])


@pytest.fixture
def stage(tmp_path: Path, victim_program: Path, confine: Path) -> Iterator[BigStage]:
    """A stage of the test's own, whose processes are confined."""
    with ExitStack() as stack:
        yield BigStage(tmp_path, victim_program, stack, [confine])


def handed_over(manager: Manager, stage: ChannelStage, api: Api) -> tuple[Numbered, Channelled]:
    """Return a client that has handed a process over, and the process."""
    client, process = Numbered(manager.client()), stage.channelled()
    client.do(opening(pace=LAZY))
    process.begin_to_open(api)
    request = process.request(**(NEVER if api is Api.V1 else {}))
    client.do(request, process.fd, process.file)
    process.opened(nr_pages=NR_BLOCKS * BLOCK)
    client.do(FINISHED)
    return client, process


def live(process: Channelled, kills: Kills, rng: random.Random, api: Api) -> list[Life]:
    """Let a process, and those that it forks, do this and that until the kills are over."""
    lives = [Life.begin(process, rng)]
    while not kills.are_over:
        if api is Api.V2 and len(lives) <= NR_FORKS and rng.random() < 0.1:
            lives.append(rng.choice(lives).fork())
        rng.choice(lives).step(changes=api is Api.V2)
        kills.step()
    return lives


@pytest.mark.timeout(240)
@pytest.mark.parametrize("api", list(Api))
def test_every_byte_is_right_however_often_the_daemon_dies(
    tmp_path: Path, stage: BigStage, api: Api
) -> None:
    """Threads that fault, and processes that discard, unmap, move and fork meanwhile, never see
    anything but what they have to."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with closing(Manager(tmp_path)) as manager:
        manager.wait_ready()
        client, process = handed_over(manager, stage, api)
        with Kills(manager, random.Random(seed + 1)) as kills:
            lives = live(process, kills, rng, api)
        assert manager.log.count("restore 1: taken over") == NR_KILLS
        assert client.do(PROGRESS).state.nr_sessions == len(lives)
        for each in lives:
            each.check_all()
        client.do(pb.Request(set_pace=pb.SetPace(pace=pb.Pace())))
        assert client.do(RELEASE).state.ended
        client.close()
        manager.wait_for_nothing_stored()
        assert "has forked, and the daemon died" not in manager.log
