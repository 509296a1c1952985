"""Address spaces of odd shapes: stacks that grow, memory that may not be touched, the last page
that there is, and very many mappings."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from tests.engine.bed import BASE, Bed, at, check, check_zero
from tests.support.victim import Victim

pytestmark = pytest.mark.uffd

# sys/mman.h
PROT_NONE = 0
PROT_READ = 1
PROT_READ_WRITE = 3
MAP_GROWSDOWN = 0x100
MADV_GUARD_INSTALL = 102
MADV_GUARD_REMOVE = 103

# The last page of user space, with four levels of page tables.
LAST_PAGE = (0x7FFFFFFFF000 - BASE) // PAGE_SIZE - 1


def is_readable(victim: Victim, page: int) -> bool:
    """Whether a page can be looked at; not whether the process itself may."""
    memory = os.open(f"/proc/{victim.pid}/mem", os.O_RDONLY)
    try:
        return len(os.pread(memory, PAGE_SIZE, at(page))) == PAGE_SIZE
    except OSError as error:
        assert error.errno == errno.EIO
        return False
    finally:
        os.close(memory)


def nr_mappings(victim: Victim) -> int:
    """Count the process's mappings."""
    return len(Path(f"/proc/{victim.pid}/maps").read_text().splitlines())


# ---- stacks ----


async def test_stack_that_grows_is_zero_in_what_it_gained(bed: Bed) -> None:
    """A mapping that grows downward, without an event, is zero there and right above."""
    victim, image = bed.victim(), bed.image((2000, 16))
    victim.call("mmap", at(2000), 16 * PAGE_SIZE, MAP_GROWSDOWN)
    victim.call("register", at(2000), 16 * PAGE_SIZE)
    bed.attach(victim, image)
    await check(victim, image, 2001)
    await check_zero(victim, 1999)
    await victim.write(at(1998), 0x5A)
    await bed.release()
    assert await victim.read(at(1998)) == b"\x5a" * PAGE_SIZE
    await check_zero(victim, 1990, 8)
    await check(victim, image, 1999, 17)


# ---- memory that may not be touched ----


async def test_guard_page_beside_a_region_is_left_alone(bed: Bed) -> None:
    """Pages without access below and between regions stay so, and empty."""
    victim, image = bed.victim((0, 65)), bed.image((1, 31), (33, 32))
    for page in 0, 32:
        victim.call("mprotect", at(page), PAGE_SIZE, PROT_NONE)
    bed.attach(victim, image)
    await check(victim, image, 1, 4)
    await bed.release()
    await check(victim, image, 1, 31)
    await check(victim, image, 33, 32)
    for page in 0, 32:
        await victim.do("mprotect", at(page), PAGE_SIZE, PROT_READ)
        await check_zero(victim, page)


async def test_region_without_access_is_drained(bed: Bed) -> None:
    """What may not be touched is filled all the same, and right once it may be."""
    victim, image = bed.serve([(0, 512)], [(0, 512)])
    await victim.do("mprotect", at(100), 300 * PAGE_SIZE, PROT_NONE)
    await bed.release()
    assert bed.counters.pages_drain == 512
    await victim.do("mprotect", at(100), 300 * PAGE_SIZE, PROT_READ_WRITE)
    await check(victim, image, 0, 512)


async def test_access_that_is_given_back_before_the_drain(bed: Bed) -> None:
    """Pages that were out of reach for a while are right at the first touch after that."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await victim.do("mprotect", at(0), 64 * PAGE_SIZE, PROT_NONE)
    await victim.do("mprotect", at(0), 64 * PAGE_SIZE, PROT_READ_WRITE)
    await check(victim, image, 7, 9)
    await bed.release()
    await check(victim, image, 0, 64)


async def test_guards_on_filled_pages_stay(bed: Bed) -> None:
    """MADV_GUARD_INSTALL empties what is filled; the drain does not fill it again, and when the
    guards are gone it is zero."""
    victim, image = bed.serve([(0, 600)], [(0, 600)])
    await check(victim, image, 100, 8)
    try:
        await victim.discard(at(102), 4, MADV_GUARD_INSTALL)
    except OSError as error:
        pytest.skip(f"MADV_GUARD_INSTALL: {error.strerror}: needs Linux 6.13")
    await bed.release()
    assert [is_readable(victim, page) for page in range(100, 108)] == [
        *[True, True],
        *[False] * 4,
        *[True, True],
    ]
    await victim.discard(at(102), 4, MADV_GUARD_REMOVE)
    await check_zero(victim, 102, 4)
    await check(victim, image, 0, 102)
    await check(victim, image, 106, 494)


# ---- the end of user space ----


async def test_last_pages_of_user_space(bed: Bed) -> None:
    """Faults, neighbourhoods and drain stop at the end of user space, and not before."""
    first = LAST_PAGE - 19
    victim, image = bed.serve([(first, 20)], [(first, 20)])
    await check(victim, image, LAST_PAGE)
    child = await victim.fork()
    await check(child, image, LAST_PAGE - 1)
    await bed.release()
    await check(victim, image, first, 20)
    await check(child, image, first, 20)


async def test_all_of_user_space_given_up_at_once(bed: Bed) -> None:
    """A range up to the very end is given up whole."""
    first = LAST_PAGE - 19
    victim, image = bed.serve([(first, 20), (0, 4)], [(0, 4), (first, 20)])
    await victim.discard(at(first), 20)
    await check_zero(victim, first, 20)
    await check(victim, image, 0, 4)
    await bed.until_counted(pages_dropped=20)


# ---- very many mappings ----

NR_MAPPINGS = 30_000


async def test_regions_over_thirty_thousand_mappings(bed: Bed) -> None:
    """Regions every page of which is a mapping by itself are drained, and nothing is given up."""
    runs = [(start, 60) for start in range(0, NR_MAPPINGS, 300)]
    victim, image = bed.serve([(0, NR_MAPPINGS)], runs)
    await victim.do("stripe", at(0), NR_MAPPINGS * PAGE_SIZE, PROT_READ)
    assert nr_mappings(victim) > NR_MAPPINGS
    await check(victim, image, 21_001, 16)
    await bed.release()
    assert bed.counters.pages_dropped == 0
    for start, nr_pages in runs:
        await check(victim, image, start, nr_pages + 1)


async def test_fork_of_thirty_thousand_mappings(bed: Bed) -> None:
    """The child of such a process misses what its parent misses, and no less."""
    victim, image = bed.serve([(0, NR_MAPPINGS)], [(0, 64), (NR_MAPPINGS - 64, 64)])
    await victim.do("stripe", at(0), NR_MAPPINGS * PAGE_SIZE, PROT_READ)
    child = await victim.fork()
    await check(child, image, 0, 32)
    await bed.release()
    for member in (victim, child):
        await check(member, image, 0, 64)
        await check(member, image, NR_MAPPINGS - 64, 64)
    assert bed.restore.sessions[1].counters.pages_dropped == 0
