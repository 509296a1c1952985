"""munmap: what is unmapped is given up, and what is mapped there next is none of ours."""

from __future__ import annotations

import asyncio
import errno

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.sources.testing import Delayed
from tests.engine.bed import Bed, at, check, check_zero
from tests.support.victim import DEADLINE_S

pytestmark = pytest.mark.uffd

GIB = 2**30 // PAGE_SIZE


async def test_unmapped_pages_are_dropped(bed: Bed) -> None:
    """A hole torn into a region is left out, and both sides are drained."""
    victim, image = bed.serve([(0, 600)], [(0, 600)])
    await victim.munmap(at(200), 100)
    await bed.release()
    assert bed.counters.events_unmap == 1
    assert bed.counters.pages_dropped == 100
    assert bed.counters.pages_drain == 500
    await check(victim, image, 0, 200)
    await check(victim, image, 300, 300)


async def test_new_mapping_at_the_same_place_is_left_alone(bed: Bed) -> None:
    """What the process maps where it has unmapped keeps what is written to it."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await victim.munmap(at(16), 16)
    await victim.do("mmap", at(16), 16 * PAGE_SIZE)
    await victim.write(at(20), 0x42, 4)
    await bed.release()
    await check_zero(victim, 16, 4)
    assert await victim.read(at(20), 4) == b"\x42" * (4 * PAGE_SIZE)
    await check_zero(victim, 24, 8)
    await check(victim, image, 32, 32)


async def test_new_mapping_of_another_thread(bed: Bed) -> None:
    """So does what another thread maps there before the munmap has been told of."""
    victim, image = bed.victim((0, 64)), bed.image((0, 64))
    fd = victim.hand_over()
    victim.begin_aside("munmap", at(16), 16 * PAGE_SIZE)
    await bed.until_changing(fd)
    await victim.do("mmap", at(16), 16 * PAGE_SIZE)
    await victim.write(at(20), 0x42, 4)
    bed.attach(victim, image, fd=fd)
    await victim.end_aside()
    await bed.release()
    assert bed.counters.pages_dropped == 16
    await check_zero(victim, 16, 4)
    assert await victim.read(at(20), 4) == b"\x42" * (4 * PAGE_SIZE)
    await check(victim, image, 0, 16)
    await check(victim, image, 32, 32)


@pytest.mark.root
async def test_new_mapping_where_pages_are_being_read(bed: Bed) -> None:
    """And what is mapped where the drain has just begun to read the image's pages."""
    victim, image = bed.victim((0, 64)), bed.image((0, 64))
    with Delayed(image.path.read_bytes()) as cold:
        bed.attach(victim, image, source=cold.as_source())
        bed.restore.release()
        await asyncio.to_thread(cold.wait_for_read, DEADLINE_S)
        await victim.munmap(at(4), 4)
        await victim.do("mmap", at(4), 4 * PAGE_SIZE)
        cold.release()
        await bed.release()
    await check_zero(victim, 4, 4)
    await check(victim, image, 0, 4)
    await check(victim, image, 8, 56)


async def test_unmapping_everything_ends_the_drain(bed: Bed) -> None:
    """A session with nothing left to fill is drained."""
    victim, _ = bed.serve([(0, 64), (100, 64)], [(0, 64), (100, 64)])
    await victim.munmap(at(0), 164)
    assert bed.session.end is None
    await bed.release()
    assert bed.counters.pages_dropped == 128
    assert bed.counters.fills == 0


async def test_unmapping_while_draining(bed: Bed) -> None:
    """An munmap in the midst of the drain does it no harm."""
    victim, image = bed.serve([(0, 8192)], [(0, 8192)])
    bed.restore.release()
    for page in range(7000, 1000, -500):
        await victim.munmap(at(page), 100)
    await bed.release()
    await check(victim, image, 0, 1500)
    await check(victim, image, 7100, 1092)


async def test_shrinking_drops_the_tail(bed: Bed) -> None:
    """An mremap to less drops what it cuts off."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await victim.do("mremap", at(0), 64 * PAGE_SIZE, 40 * PAGE_SIZE)
    await bed.release()
    assert bed.counters.pages_dropped == 24
    await check(victim, image, 0, 40)


async def test_more_than_two_gibibytes_at_once(bed: Bed) -> None:
    """A range longer than any 32-bit number of bytes is dropped."""
    victim, image = bed.serve([(0, 6 * GIB)], [(start * GIB, 8) for start in range(6)])
    await victim.munmap(at(GIB + 4), 4 * GIB)
    await bed.release()
    await check(victim, image, 0, 8)
    await check(victim, image, GIB, 4)
    await check(victim, image, 5 * GIB + 4, 4)
    assert bed.counters.pages_dropped == 4 + 3 * 8 + 4
    with pytest.raises(OSError) as caught:
        await victim.do("mprotect", at(2 * GIB), PAGE_SIZE, 1)
    assert caught.value.errno == errno.ENOMEM
