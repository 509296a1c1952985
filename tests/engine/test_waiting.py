"""Faults that were read and not answered: where, since when and why, and what they took."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from lazypagesd.engine.session import Reason, Waiting
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.kernel import uffd
from lazypagesd.sources.testing import Delayed, Short
from tests.engine.bed import Bed, at, check
from tests.support.image import Image, wrong_pages
from tests.support.refusal import Refusal
from tests.support.victim import DEADLINE_S, Victim

pytestmark = pytest.mark.uffd

NR_PAGES = 32


def kinds(bed: Bed) -> tuple[int, ...]:
    """Return how many faults were filled at once from the image, with zeros, after a retry, and
    when their bytes had come."""
    return tuple(latency.count for latency in bed.counters.latencies)


def waiting(bed: Bed) -> Waiting:
    """Return the one fault that waits."""
    [found] = bed.session.waiting()
    assert bed.session.oldest_waiting_ns is not None
    assert bed.session.oldest_waiting_ns > 0
    return found


def cut(bed: Bed, nr_pages: int) -> tuple[Victim, Image, Short]:
    """Serve a process from a file of which only so many pages are left."""
    victim, image = bed.victim((0, NR_PAGES)), bed.image((0, NR_PAGES))
    source = Short(image.path.read_bytes(), nr_pages * PAGE_SIZE)
    bed.attach(victim, image, source=source.as_source())
    return victim, image, source


async def test_nothing_waits_when_all_is_answered(bed: Bed) -> None:
    """Once a fault has been answered nobody waits; at once is a kind of its own."""
    victim, image = bed.serve([(0, 8)], [(0, 4)])
    await check(victim, image, 0, 8)
    await bed.until(lambda: sum(kinds(bed)) == 8, "latencies")
    assert kinds(bed) == (4, 4, 0, 0)
    assert bed.session.waiting() == []
    assert bed.session.oldest_waiting_ns is None


@pytest.mark.root
async def test_cold_fault_waits_for_its_file(bed: Bed) -> None:
    """A fault whose bytes are on their way says so, and is counted as cold when they have come."""
    victim, image = bed.victim((0, NR_PAGES)), bed.image((0, NR_PAGES))
    with Delayed(image.path.read_bytes()) as source:
        bed.attach(victim, image, source=source.as_source())
        victim.begin_reading(at(3))
        await asyncio.to_thread(source.wait_for_read, DEADLINE_S)
        await bed.until(lambda: bed.session.waiting() != [], "a fault that waits")
        found = waiting(bed)
        assert (found.addr, found.reason) == (at(3), Reason.COLD)
        assert (found.source, found.offset, found.error) == ("delayed", 3 * PAGE_SIZE, None)
        source.release()
        assert await victim.end_reading() == image.bytes(at(3), 1)
        await bed.until(lambda: kinds(bed) == (0, 0, 0, 1), "a cold fault")
        assert bed.session.waiting() == []
        bed.engine.abandon(bed.session)
        await bed.until(lambda: bed.session.final is not None, "the end")
    assert bed.session.waiting() == []


async def test_fault_without_memory_is_retried(refusal: Refusal, bed: Bed) -> None:
    """A fault that there is no memory for waits for a retry, and is counted as one, be it of the
    image or zero."""
    victim, image = bed.victim((0, 8)), bed.image((0, 4))
    refusal.set_in()
    bed.attach(victim, image)
    victim.begin_reading(at(3), nr_threads=2, step_pages=1)
    # The list is being worked at: each is there at some time, and not always with the other.
    found: dict[int, Waiting] = {}

    def look() -> bool:
        found.update((each.addr, each) for each in bed.session.waiting())
        return len(found) == 2

    await bed.until(look, "faults that wait")
    assert {each.reason for each in found.values()} == {Reason.RETRY}
    assert all(each.tries > 0 for each in found.values())
    refusal.lift()
    seen = await victim.end_reading()
    assert wrong_pages(seen, image.bytes(at(3), 2)) == []
    await bed.until(lambda: kinds(bed) == (0, 0, 2, 0), "faults that were retried")


async def test_held_fault_says_what_is_wrong(bed: Bed) -> None:
    """Of a fault that cannot be filled it says for which file, and why, until that is mended."""
    victim, image, source = cut(bed, 8)
    with source:
        victim.begin_reading(at(9))
        await bed.until(lambda: bed.session.waiting() != [], "a fault that waits")
        found = waiting(bed)
        assert (found.addr, found.reason) == (at(9), Reason.HELD)
        assert (found.source, found.offset) == ("short", 9 * PAGE_SIZE)
        assert found.error is not None
        assert found.error.errno == errno.ENODATA
        source.extend()
        bed.session.retry()
        assert await victim.end_reading() == image.bytes(at(9), 1)
        await bed.until_counted(pages_fault=1)
        assert bed.session.waiting() == []
        await bed.release()


async def test_held_fault_has_waited_since_it_was_first_met(bed: Bed) -> None:
    """That it was tried again in vain makes it no younger, and nobody forgets it meanwhile."""
    victim, image, source = cut(bed, 8)
    with source:
        victim.begin_reading(at(9))
        await bed.until(lambda: len(bed.troubles) == 1, "a trouble")
        first = waiting(bed)
        bed.session.retry()
        assert waiting(bed) == first
        await bed.until(lambda: len(bed.troubles) == 2, "the same trouble")
        assert waiting(bed).since_ns == first.since_ns
        source.extend()
        bed.session.retry()
        assert await victim.end_reading() == image.bytes(at(9), 1)
        await bed.release()


async def test_page_that_the_drain_cannot_fill_is_waited_for_by_nobody(bed: Bed) -> None:
    """What is merely missing is no fault."""
    _, _, source = cut(bed, 8)
    with source:
        bed.restore.release()
        await bed.until(lambda: len(bed.troubles) > 0, "a trouble")
        assert bed.session.waiting() == []
        source.extend()
        bed.session.retry()
        await bed.until(lambda: bed.session.final is not None, "the end")


async def test_queued_faults_are_those_that_nobody_has_read(bed: Bed) -> None:
    """The kernel's queue is counted apart from what was read and not answered."""
    victim, image = bed.victim((0, NR_PAGES)), bed.image((0, NR_PAGES))
    fd = victim.hand_over()
    victim.begin_reading(at(9), nr_threads=3, step_pages=1)
    await bed.until_waiting(fd, 3)
    assert uffd.nr_pending(fd) == 3
    source = Short(image.path.read_bytes(), 8 * PAGE_SIZE)
    with source:
        bed.attach(victim, image, fd=fd, source=source.as_source())
        await bed.until(lambda: len(bed.session.waiting()) == 3, "faults that wait")
        assert bed.session.nr_queued == 0
        assert f"total:\t{3}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text()
        source.extend()
        bed.session.retry()
        assert await victim.end_reading() == image.bytes(at(9), 3)
        await bed.release()
    assert bed.session.nr_queued is None


async def test_channel_has_no_queue_that_can_be_seen(bed: Bed) -> None:
    """Of a socket the kernel does not tell."""
    bed.serve_channel([(0, 4)], [(0, 4)])
    assert bed.session.nr_queued is None
