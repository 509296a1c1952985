"""Memory of hugetlbfs: a page of 2 MiB is filled as a whole, whatever the image has of it.

Some facts: MADV_DONTNEED drops whole pages of it; MADV_REMOVE, which
shared memory knows, may name a part of one.
"""

from __future__ import annotations

import asyncio
import errno
import mmap

import pytest

from lazypagesd.engine.pace import Pace
from lazypagesd.engine.session import End, Session
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.kernel.uffd import Feature
from lazypagesd.native import lib
from lazypagesd.sources.file import FileSource
from lazypagesd.sources.testing import Short
from tests.engine.bed import Bed, Runs, at, check, check_moved, check_zero
from tests.support.hugetlb import HUGE, MAP_HUGETLB, huge_pages, none_free
from tests.support.image import Image, wrong_pages
from tests.support.victim import DEADLINE_S, Victim

__all__ = ["huge_pages"]

pytestmark = [pytest.mark.uffd, pytest.mark.usefixtures("huge_pages")]

MADV_REMOVE = 9  # asm-generic/mman-common.h; not in Python's mmap


def huge_victim(bed: Bed, nr_huge: int, *, features: int = 0, flags: int = 0) -> Victim:
    """Return a process that has so many huge pages, from the first one on."""
    return bed.victim(
        (0, nr_huge * HUGE),
        features=features | Feature.MISSING_HUGETLBFS,
        flags=MAP_HUGETLB | flags,
    )


def serve(
    bed: Bed, nr_huge: int, runs: Runs, *, features: int = 0, flags: int = 0
) -> tuple[Victim, Image]:
    """Fill such a one from an image with *runs*."""
    victim = huge_victim(bed, nr_huge, features=features, flags=flags)
    image = bed.image(*runs)
    bed.attach(victim, image)
    return victim, image


@pytest.mark.parametrize("features", [0, Feature.EXACT_ADDRESS], ids=["", "exact"])
async def test_fault_brings_its_huge_page(bed: Bed, features: int) -> None:
    """Whatever page of it was touched, and no other one before the release."""
    victim, image = serve(bed, 3, [(0, 3 * HUGE)], features=features)
    await check(victim, image, HUGE + 200)
    await bed.until_counted(faults=1, fills=1, pages_fault=1, pages_neighbour=HUGE - 1)
    assert bed.counters.nr_missing == 2 * HUGE
    await check(victim, image, 0, 3 * HUGE)
    await bed.until_counted(faults=3, fills=3, nr_missing=0, pages_zero=0)
    assert bed.counters.bytes == 3 * lib.LPD_HUGE_SIZE


async def test_what_the_image_has_not_is_zero(bed: Bed) -> None:
    """Runs that begin and end anywhere, also across two huge pages, with zeros between them."""
    runs = [(3, 2), (HUGE - 1, 2), (2 * HUGE - 1, 1), (3 * HUGE, 1)]
    victim, image = serve(bed, 5, runs)
    await check(victim, image, HUGE)
    await check(victim, image, 0, 5 * HUGE)
    await bed.until_counted(faults=5, fills=5, nr_missing=0)
    assert bed.counters.pages_zero == 5 * HUGE - 6
    kinds = [latency.count for latency in bed.counters.latencies]
    assert kinds == [3, 2, 0, 0]


async def test_drain_fills_what_the_image_has(bed: Bed) -> None:
    """Each huge page of which the image has a page is filled once, and no other one."""
    victim, image = serve(bed, 6, [(5, 1), (9, 2 * HUGE), (4 * HUGE + 7, 30)])
    await bed.release()
    assert bed.counters.fills == 4
    assert bed.counters.pages_drain == 2 * HUGE + 31
    await check(victim, image, 0, 6 * HUGE)


async def test_helpers_leave_it_to_the_worker(bed: Bed) -> None:
    """Those who fill pieces of other memory do it no harm."""
    for worker in bed.engine.workers:
        worker.pointer.helped_from_pages = 0
    victim, image = serve(bed, 16, [(0, 16 * HUGE)])
    await bed.release()
    assert bed.counters.pages_drain == 16 * HUGE
    await check(victim, image, 0, 16 * HUGE)


async def test_paced_drain_comes_to_its_end(bed: Bed) -> None:
    """A rate of less than a huge page a turn is paid for afterwards."""
    victim, image = serve(bed, 4, [(0, 4 * HUGE)])
    bed.session.set_pace(Pace(256 << 20))
    await bed.release()
    await check(victim, image, 0, 4 * HUGE)


async def test_other_memory_beside_it_is_filled_page_by_page(bed: Bed) -> None:
    """In front of it and behind, no page is filled that the image has not."""
    victim = bed.victim((0, HUGE), (3 * HUGE, HUGE), features=Feature.MISSING_HUGETLBFS)
    for command, *flags in ("mmap", MAP_HUGETLB), ("register",):
        victim.call(command, at(HUGE), 2 * lib.LPD_HUGE_SIZE, *flags)
    image = bed.image((HUGE - 3, 2 * HUGE + 6), (3 * HUGE + 100, 1))
    bed.attach(victim, image)
    await check(victim, image, HUGE)
    await bed.release()
    assert bed.counters.pages_zero == 0
    # Two of the three pages behind it follow the one that tells that it has ended.
    assert bed.counters.fills == 6
    await check(victim, image, 0, 4 * HUGE)


async def test_thread_that_writes_goes_on(bed: Bed) -> None:
    """What is written stays, beside the image's bytes."""
    victim, image = serve(bed, 1, [(0, HUGE)])
    await victim.write(at(7), 0x21)
    assert await victim.read(at(7)) == b"\x21" * PAGE_SIZE
    await check(victim, image, 8, HUGE - 8)
    await check(victim, image, 0, 7)


async def test_page_that_is_there_is_left_alone(bed: Bed) -> None:
    """A huge page that a fault has brought since is not filled again, nor what was discarded."""
    victim, image = serve(bed, 4, [(0, 4 * HUGE)])
    await victim.write(at(HUGE), 0x21)
    await victim.discard(at(2 * HUGE), HUGE)
    await bed.release()
    assert await victim.read(at(HUGE)) == b"\x21" * PAGE_SIZE
    await check_zero(victim, 2 * HUGE, HUGE)
    await check(victim, image, 0, HUGE)
    await check(victim, image, 3 * HUGE, HUGE)


async def test_page_brought_by_somebody_else_counts_as_present(bed: Bed) -> None:
    """Shared memory that another mapping of it has filled is there for all of its pages."""
    victim, image = serve(bed, 2, [(0, 2 * HUGE)], flags=mmap.MAP_SHARED)
    child, session = await forked(bed, victim)
    await check(child, image, 0, HUGE)
    await victim.write(at(5), 0x21)
    for each in bed.session, session:
        each.drain()
    await bed.release()
    assert bed.counters.pages_present + session.counters.pages_present >= 2 * HUGE
    assert await child.read(at(5)) == b"\x21" * PAGE_SIZE
    await check(victim, image, 6, 2 * HUGE - 6)


async def forked(bed: Bed, victim: Victim) -> tuple[Victim, Session]:
    """Let it fork; return the child, and its session."""
    child = await victim.fork()
    await bed.until(lambda: len(bed.restore.sessions) == 2, "a child's session")
    return child, bed.restore.sessions[1]


async def test_child_has_its_own(bed: Bed) -> None:
    """Parent and child of a fork each get what was missing, and keep what they write."""
    victim, image = serve(bed, 3, [(0, 3 * HUGE)])
    await victim.write(at(1), 0x11)
    child, _session = await forked(bed, victim)
    await child.write(at(HUGE + 1), 0x22)
    await bed.release()
    for each, page in (victim, HUGE + 1), (child, 1):
        expected = b"\x11" * PAGE_SIZE if each is child else image.page(at(page))
        assert wrong_pages(await each.read(at(page)), expected) == []
        await check(each, image, 2 * HUGE, HUGE)
    assert await child.read(at(HUGE + 1)) == b"\x22" * PAGE_SIZE


async def test_part_that_was_removed_while_missing_is_zero(bed: Bed) -> None:
    """MADV_REMOVE of a part of a huge page leaves the rest of it to the image."""
    victim, image = serve(bed, 2, [(0, 2 * HUGE)], flags=mmap.MAP_SHARED)
    await victim.discard(at(10), 20, MADV_REMOVE)
    await bed.release()
    await check_zero(victim, 10, 20)
    await check(victim, image, 0, 10)
    await check(victim, image, 30, 2 * HUGE - 30)


async def test_moved_and_unmapped_pages_are_followed(bed: Bed) -> None:
    """mremap() takes missing huge pages along; what is unmapped is nobody's."""
    victim, image = serve(bed, 4, [(0, 4 * HUGE)])
    await victim.move(at(0), 2 * HUGE, at(10 * HUGE))
    await victim.munmap(at(3 * HUGE), HUGE)
    await check_moved(victim, image, 10 * HUGE, HUGE, origin=0)
    await bed.release()
    await check_moved(victim, image, 11 * HUGE, HUGE, origin=HUGE)
    await check(victim, image, 2 * HUGE, HUGE)
    assert bed.counters.pages_dropped == HUGE


# ---- sources that wait, or are broken ----


def blocking(bed: Bed, image_runs: Runs) -> tuple[Image, FileSource]:
    """Return an image, and its file as one that every read of may wait for."""
    image = bed.image(*image_runs)
    return image, bed.blocking_source(image)


@pytest.mark.parametrize("_attempt", range(10))  # it is a matter of who comes first
async def test_bytes_that_are_waited_for_are_put_together(bed: Bed, _attempt: int) -> None:
    """Of a source that cannot be read at once, a huge page takes many reads; those that wait
    meanwhile come to their turn."""
    image, source = blocking(bed, [(2, 8 * HUGE - 4)])
    victim = huge_victim(bed, 8)
    bed.attach(victim, image, source=source)
    victim.begin_reading(at(1), nr_threads=8, step_pages=HUGE)
    seen = await victim.end_reading()
    assert wrong_pages(seen, b"".join(image.page(at(1 + i * HUGE)) for i in range(8))) == []
    assert bed.counters.latencies[lib.LPD_FAULT_COLD].count >= 1
    await check(victim, image, 0, 8 * HUGE)


async def test_drain_waits_for_bytes_as_well(bed: Bed) -> None:
    """So does what nobody waits for; another session is served beside it."""
    image, source = blocking(bed, [(0, 3 * HUGE)])
    victim = huge_victim(bed, 3)
    bed.attach(victim, image, source=source)
    other, other_image = serve(bed, 3, [(0, 3 * HUGE)])
    await bed.release()
    await check(victim, image, 0, 3 * HUGE)
    await check(other, other_image, 0, 3 * HUGE)


@pytest.mark.parametrize("_attempt", range(5))  # it is a matter of who comes first
async def test_huge_page_that_was_begun_with_is_finished(bed: Bed, _attempt: int) -> None:
    """The worker goes on with it by itself: whoever had begun need not come again, such as drain
    that goes back to what a helper could not fill.  Events about other memory do not stop it."""
    for worker in bed.engine.workers:
        worker.pointer.helped_from_pages = 0
    image, source = blocking(bed, [(0, 24 * HUGE)])
    victim = huge_victim(bed, 25)
    session = bed.attach(victim, image, source=source)
    bed.restore.release()
    async with asyncio.timeout(DEADLINE_S):
        while session.final is None:
            await victim.do("madvise", at(24 * HUGE), HUGE * PAGE_SIZE, mmap.MADV_DONTNEED)
    assert session.end is End.DRAINED
    await check(victim, image, 0, 24 * HUGE)


async def test_child_has_what_was_begun_with(bed: Bed) -> None:
    """A huge page that is being put together when a process forks is missing in its child, too."""
    image, source = blocking(bed, [(0, 12 * HUGE)])
    victim = huge_victim(bed, 12)
    bed.attach(victim, image, source=source)
    bed.restore.release()
    children = [await victim.fork() for _ in range(3)]
    for each in (*children, victim):
        await check(each, image, 0, 12 * HUGE)


async def test_huge_page_with_a_broken_page_is_held(bed: Bed) -> None:
    """It waits as a whole, the operator is told of the page that is to blame, and the others are
    filled; once that is mended it comes.  The end of a file is no zeros."""
    # Of these two the first is the last in the file.
    image = bed.image((0, HUGE), (HUGE, 2 * HUGE))
    with Short(image.path.read_bytes(), (2 * HUGE + 300) * PAGE_SIZE + 5) as source:
        victim = huge_victim(bed, 3)
        bed.attach(victim, image, source=source.as_source())
        victim.begin_reading(at(3))
        await bed.until(lambda: bool(bed.troubles), "a word of the page")
        assert (bed.troubles[0].addr, bed.troubles[0].waiting) == (at(300), True)
        assert bed.troubles[0].offset == (2 * HUGE + 300) * PAGE_SIZE
        bed.restore.release()
        await bed.until_counted(nr_missing=HUGE)
        assert bed.session.is_held
        source.extend()
        bed.session.retry()
        assert wrong_pages(await victim.end_reading(), image.page(at(3))) == []
        await bed.until_ended(bed.session, End.DRAINED)
        await check(victim, image, 0, 3 * HUGE)


async def test_fault_waits_until_there_is_a_page(bed: Bed) -> None:
    """An empty pool, of which the kernel says that the page is there, makes no zeros."""
    victim, image = serve(bed, 2, [(0, 2 * HUGE)])
    with none_free():
        victim.begin_reading(at(5), 1)
        await bed.until(lambda: bed.counters.wakes > 5, "attempts")
        assert (bed.counters.fills, bed.counters.nr_missing) == (0, 2 * HUGE)
    assert wrong_pages(await victim.end_reading(), image.page(at(5))) == []
    await check(victim, image, 0, 2 * HUGE)
    assert not bed.troubles


async def test_drain_waits_until_there_is_a_page(bed: Bed) -> None:
    """Nothing is given up; the operator is told what is lacking, and once it is there and he says
    so, the rest comes."""
    victim, image = serve(bed, 2, [(0, 2 * HUGE)])
    with none_free():
        bed.restore.release()
        await bed.until(lambda: len(bed.troubles) == 2, "a word of both")
        assert {(trouble.source, trouble.waiting) for trouble in bed.troubles} == {(None, False)}
        assert bed.troubles[0].error.errno == errno.ENOMEM
        assert bed.counters.nr_missing == 2 * HUGE
    bed.session.retry()
    await bed.until_ended(bed.session, End.DRAINED)
    await check(victim, image, 0, 2 * HUGE)
