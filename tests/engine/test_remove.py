"""MADV_DONTNEED and its like: what the process gave up is zero, whatever the image says."""

from __future__ import annotations

import asyncio
import mmap

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.sources.testing import Delayed
from tests.engine.bed import Bed, at, check, check_zero
from tests.support.victim import DEADLINE_S

pytestmark = pytest.mark.uffd

GIB = 2**30 // PAGE_SIZE


async def test_page_that_was_never_filled_is_zero(bed: Bed) -> None:
    """What is given up before it was filled is zero, and the rest is right."""
    victim, image = bed.serve([(0, 32)], [(0, 32)])
    await victim.discard(at(8), 4)
    await check_zero(victim, 8, 4)
    await check(victim, image, 0, 8)
    await check(victim, image, 12, 20)
    await bed.until_counted(events_remove=1)
    await bed.until_counted(pages_dropped=4)


async def test_page_that_was_filled_is_zero_again(bed: Bed) -> None:
    """What is given up after it was filled is zero, and not filled anew."""
    victim, image = bed.serve([(0, 32)], [(0, 32)])
    await check(victim, image, 0, 32)
    await victim.discard(at(8), 4)
    await check_zero(victim, 8, 4)
    await check(victim, image, 12, 20)
    await bed.until_counted(pages_dropped=0)


async def test_drain_does_not_bring_back_what_was_given_up(bed: Bed) -> None:
    """The drain leaves out what was given up before."""
    victim, image = bed.serve([(0, 1024)], [(0, 1024)])
    await victim.discard(at(100), 800)
    await bed.release()
    await check(victim, image, 0, 100)
    await check_zero(victim, 100, 800)
    await check(victim, image, 900, 124)
    assert bed.counters.pages_drain == 224


async def test_giving_up_while_draining(bed: Bed) -> None:
    """What is given up in the midst of the drain is zero."""
    victim, image = bed.serve([(0, 8192)], [(0, 8192)])
    bed.restore.release()
    await victim.discard(at(4000), 4000)
    await bed.release()
    await check_zero(victim, 4000, 4000)
    await check(victim, image, 8000, 192)


async def test_range_over_many_regions_and_gaps(bed: Bed) -> None:
    """One call over regions and gaps, which begins and ends within regions, drops just those
    pages."""
    victim, image = bed.serve([(0, 128)], [(start, 5) for start in range(0, 128, 8)])
    await victim.discard(at(10), 92)
    await check_zero(victim, 10, 92)
    await check(victim, image, 0, 10)
    await check(victim, image, 102, 26)
    await bed.until_counted(pages_dropped=3 + 10 * 5 + 5)


async def test_page_written_after_it_was_given_up(bed: Bed) -> None:
    """A page that is written anew keeps that through the drain."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await victim.discard(at(8), 4)
    await victim.write(at(9), 0x77)
    await bed.release()
    assert await victim.read(at(9)) == b"\x77" * PAGE_SIZE
    await check_zero(victim, 8)
    await check(victim, image, 12, 52)


async def test_madv_free_gives_up_as_well(bed: Bed) -> None:
    """MADV_FREE of what is not there yet leaves zeros."""
    victim, image = bed.serve([(0, 32)], [(0, 32)])
    await victim.discard(at(8), 8, mmap.MADV_FREE)
    await bed.release()
    await check_zero(victim, 8, 8)
    await check(victim, image, 16, 16)


async def test_thread_at_a_page_that_is_given_up_reads_zeros(bed: Bed) -> None:
    """A thread that waits for a page when another gives it up gets zeros: the fault may be read
    first, but must not be answered first."""
    victim, image = bed.victim((0, 8)), bed.image((0, 8))
    fd = victim.hand_over()
    victim.begin_reading(at(3))
    await bed.until_waiting(fd)
    discarding = asyncio.create_task(victim.discard(at(2), 4))
    await bed.until_changing(fd)
    bed.attach(victim, image, fd=fd)
    await discarding
    assert await victim.end_reading() == bytes(PAGE_SIZE)
    await check_zero(victim, 2, 4)
    await check(victim, image, 6, 2)


@pytest.mark.root
async def test_page_that_is_given_up_while_it_is_being_read(bed: Bed) -> None:
    """A page whose bytes are on their way from the disk when it is given up is zero, to the
    thread that waits for it as well."""
    victim, image = bed.victim((0, 8)), bed.image((0, 8))
    with Delayed(image.path.read_bytes()) as cold:
        bed.attach(victim, image, source=cold.as_source())
        victim.begin_reading(at(3))
        await asyncio.to_thread(cold.wait_for_read, DEADLINE_S)
        await victim.discard(at(2), 4)
        cold.release()
        assert await victim.end_reading() == bytes(PAGE_SIZE)
        await bed.release()
    await check_zero(victim, 2, 4)
    await check(victim, image, 0, 2)
    await check(victim, image, 6, 2)


async def test_more_than_two_gibibytes_at_once(bed: Bed) -> None:
    """A range longer than any 32-bit number of bytes is followed, whatever lies in it."""
    victim, image = bed.serve([(0, 6 * GIB)], [(start * GIB, 8) for start in range(6)])
    await check(victim, image, 2 * GIB, 4)
    await victim.discard(at(GIB + 4), 4 * GIB)
    await bed.release()
    await check(victim, image, 0, 8)
    await check(victim, image, GIB, 4)
    await check_zero(victim, GIB + 4, 4)
    await check_zero(victim, 2 * GIB, 8)
    await check_zero(victim, 5 * GIB, 4)
    await check(victim, image, 5 * GIB + 4, 4)
    assert bed.counters.pages_dropped == 4 + 4 + 8 + 8 + 4
