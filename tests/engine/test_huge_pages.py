"""Huge pages and locked memory: the kernel would like to fill what is missing, and must not.

Some facts: what khugepaged does now and then, MADV_COLLAPSE does at once and with the same code,
which leaves alone a range with a hole in it while that is registered with a userfaultfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
from pathlib import Path

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from tests.engine.bed import Bed, at, check, check_zero
from tests.support.victim import Victim

pytestmark = pytest.mark.uffd

# asm-generic/mman-common.h
MADV_COLLAPSE = 25
MLOCK_ONFAULT = 1

# Pages; one may begin where the bed has its page 0.
HUGE = 512


def mapped(victim: Victim, what: str) -> int:
    """Add up, in pages, what the kernel says of all mappings of the process."""
    text = Path(f"/proc/{victim.pid}/smaps_rollup").read_text()
    [line] = [line for line in text.splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024 // PAGE_SIZE


async def collapse(victim: Victim, page: int, nr_pages: int = HUGE) -> None:
    """Ask for huge pages, now."""
    await victim.discard(at(page), nr_pages, MADV_COLLAPSE)


async def test_advised_memory_is_filled_page_by_page(bed: Bed) -> None:
    """A fault where huge pages are wanted brings one page, and no huge page of zeros."""
    victim, image = bed.serve([(0, 4 * HUGE)], [(0, HUGE), (HUGE + 1, HUGE)])
    await victim.discard(at(0), 4 * HUGE, mmap.MADV_HUGEPAGE)
    await check(victim, image, 5)
    await check_zero(victim, 3 * HUGE)
    await victim.write(at(HUGE), 0x21)
    await bed.until_counted(pages_fault=1, pages_zero=2)
    await bed.release()
    await check(victim, image, 0, HUGE)
    assert await victim.read(at(HUGE)) == b"\x21" * PAGE_SIZE
    await check(victim, image, HUGE + 1, 3 * HUGE - 1)


async def test_range_with_a_hole_is_not_collapsed(bed: Bed) -> None:
    """While a page is missing, the kernel makes no huge page around it."""
    victim, image = bed.serve([(0, HUGE)], [(0, HUGE)])
    await check(victim, image, 0, HUGE - 1)
    with pytest.raises(OSError) as caught:
        await collapse(victim, 0)
    assert caught.value.errno == errno.EBUSY
    await check(victim, image, HUGE - 1)
    await bed.until_counted(pages_fault=HUGE)


async def test_range_that_is_in_may_be_collapsed(bed: Bed) -> None:
    """A huge page made of filled ones does the drain beside it no harm, nor giving it up, and a
    child of the process gets what is missing."""
    victim, image = bed.serve([(0, 3 * HUGE)], [(0, 3 * HUGE)])
    await check(victim, image, HUGE, HUGE)
    await collapse(victim, HUGE)
    assert mapped(victim, "AnonHugePages") == HUGE
    child = await victim.fork()
    await victim.discard(at(HUGE + 8), 16)
    await bed.release()
    await check(victim, image, 0, HUGE + 8)
    await check_zero(victim, HUGE + 8, 16)
    await check(victim, image, HUGE + 24, 2 * HUGE - 24)
    await check(child, image, 0, 3 * HUGE)


async def test_collapsing_amid_the_drain(bed: Bed) -> None:
    """Where huge pages are asked for while the drain fills them, all pages are right."""
    victim, image = bed.serve([(0, 8 * HUGE)], [(0, 8 * HUGE)])
    await victim.discard(at(0), 8 * HUGE, mmap.MADV_HUGEPAGE)
    draining = asyncio.create_task(bed.release())
    while not draining.done():
        with contextlib.suppress(OSError):
            await collapse(victim, 0, 8 * HUGE)
    await draining
    await check(victim, image, 0, 8 * HUGE)


async def test_memory_that_is_locked_on_fault(bed: Bed) -> None:
    """mlock2(MLOCK_ONFAULT) fills nothing, and what is filled then, a page of it split off before,
    is right and locked."""
    victim, image = bed.serve([(0, 256)], [(0, 256)])
    await victim.do("mlock2", at(100), 50 * PAGE_SIZE, MLOCK_ONFAULT)
    await bed.until_counted(faults=0)
    await check(victim, image, 120)
    await bed.release()
    assert bed.counters.pages_dropped == 0
    assert mapped(victim, "Locked") == 50
    await check(victim, image, 0, 256)


async def test_memory_that_is_locked(bed: Bed) -> None:
    """mlock() of what is missing waits for all of it."""
    victim, image = bed.serve([(0, 64)], [(0, 48)])
    await victim.do("mlock2", at(0), 64 * PAGE_SIZE, 0)
    await bed.until_counted(pages_fault=48, pages_zero=16)
    assert mapped(victim, "Locked") == 64
    await check(victim, image, 0, 64)
