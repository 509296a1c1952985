"""Mappings that change without a pause, while others fault: nobody hangs, every byte is right."""

from __future__ import annotations

import asyncio

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from tests.engine.bed import Bed, at, check, check_zero
from tests.support.image import wrong_pages
from tests.support.victim import HAMMER_DONTNEED, HAMMER_MPROTECT, HAMMER_MREMAP

pytestmark = pytest.mark.uffd

HAMMERS = pytest.mark.parametrize(
    "hammer",
    [
        pytest.param(HAMMER_DONTNEED, id="dontneed"),
        pytest.param(HAMMER_MREMAP, id="mremap"),
        pytest.param(HAMMER_MPROTECT, id="mprotect"),
    ],
)


@HAMMERS
async def test_faults_under_the_hammer(bed: Bed, hammer: int) -> None:
    """Threads that fault get their pages while another changes mappings all the time."""
    victim, image = bed.serve([(0, 128), (600, 16)], [(0, 128)])
    await victim.do("hammer", hammer, at(600), 16 * PAGE_SIZE, at(700))
    victim.begin_reading(at(0), 8, nr_threads=16, step_pages=8)
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 128)) == []
    assert await victim.do("hush") > 0
    await check_zero(victim, 600, 16)


async def test_faults_far_apart_under_the_hammer(bed: Bed) -> None:
    """Threads whose pages do not lie together get them as soon: what was read for one of them, a
    MiB, is at hand in the few moments in which it can be filled."""
    victim, image = bed.serve([(0, 4096), (6000, 16)], [(0, 4096)])
    await victim.do("hammer", HAMMER_MREMAP, at(6000), 16 * PAGE_SIZE, at(7000))
    victim.begin_reading(at(0), 256, nr_threads=16, step_pages=256)
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 4096)) == []
    assert await victim.do("hush") > 0


@pytest.mark.parametrize("filled", [True, False], ids=["copy", "zeropage"])
async def test_fills_that_get_eagain(bed: Bed, filled: bool) -> None:
    """A fill that the kernel puts off, for another thread never stops, is done in the end."""
    victim, image = bed.serve([(0, 4096), (6000, 16)], [(0, 4096)] if filled else [])
    await victim.do("hammer", HAMMER_DONTNEED, at(6000), 16 * PAGE_SIZE, 0)
    page = 0
    while not bed.counters.retries:
        await check(victim, image, page)
        page += 1
    assert await victim.do("hush") > 0
    await check(victim, image, 0, page + 1)


@HAMMERS
async def test_drain_under_the_hammer(bed: Bed, hammer: int) -> None:
    """The drain gets done, beside threads that fault, while mappings change all the time."""
    victim, image = bed.serve([(0, 512), (3000, 16)], [(0, 512)])
    await victim.do("hammer", hammer, at(3000), 16 * PAGE_SIZE, at(4000))
    victim.begin_reading(at(0), 64, nr_threads=8, step_pages=64)
    await bed.release()
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 512)) == []
    assert await victim.do("hush") > 0


async def test_hammered_pages_end_as_zeros(bed: Bed) -> None:
    """Image pages that are given up again and again, amid the drain, are zero in the end."""
    victim, image = bed.serve([(0, 2048)], [(0, 2048)])
    await victim.do("hammer", HAMMER_DONTNEED, at(1000), 64 * PAGE_SIZE, 0)
    victim.begin_reading(at(1000), 64, nr_threads=4)
    await bed.release()
    seen = await victim.end_reading()
    await victim.do("hush")
    await victim.discard(at(1000), 64)
    await check_zero(victim, 1000, 64)
    await check(victim, image, 0, 1000)
    await check(victim, image, 1064, 984)
    # A thread may have been first, even halfway through a page; but nobody sees anything else.
    pages = 4 * image.bytes(at(1000), 64)
    assert len(seen) == len(pages)
    for i in range(0, len(seen), 8):
        assert seen[i : i + 8] in (bytes(8), pages[i : i + 8])


async def test_moving_image_pages_under_the_hammer(bed: Bed) -> None:
    """Image pages that move to and fro amid faults and drain are right where they end."""
    victim, image = bed.serve([(0, 1024)], [(0, 1024)])
    await victim.do("hammer", HAMMER_MREMAP, at(300), 100 * PAGE_SIZE, at(5000))
    victim.begin_reading(at(0), 75, nr_threads=4, step_pages=75)
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 300)) == []
    bed.restore.release()
    await bed.until(lambda: bed.counters.pages_neighbour > 0, "more than the faults")
    await victim.do("hush")
    await bed.release()
    await check(victim, image, 0, 1024)


async def test_forks_under_the_hammer(bed: Bed) -> None:
    """Children that are forked while mappings move see one whole state of things."""
    victim, image = bed.serve([(0, 256)], [(0, 256)])
    await victim.do("hammer", HAMMER_DONTNEED, at(200), 16 * PAGE_SIZE, 0)
    children = [await victim.fork() for _ in range(8)]
    await asyncio.gather(*(check(child, image, 0, 200) for child in children))
    await victim.do("hush")
    await bed.release()
    for child in children:
        await check(child, image, 216, 40)


async def test_more_threads_than_are_kept_pending(bed: Bed) -> None:
    """Three hundred threads that cannot be answered at first all get their page."""
    victim, image = bed.victim((0, 300), (600, 4)), bed.image((0, 300))
    fd = victim.hand_over()
    victim.begin_reading(at(0), nr_threads=300, step_pages=1)
    await bed.until_waiting(fd, 300)
    hammering = asyncio.create_task(
        victim.do("hammer", HAMMER_DONTNEED, at(600), 4 * PAGE_SIZE, 0)
    )
    await bed.until_changing(fd)
    bed.attach(victim, image, fd=fd)
    await hammering
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 300)) == []
    await victim.do("hush")
