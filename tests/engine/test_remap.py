"""mremap: what is missing moves along with the mapping."""

from __future__ import annotations

import pytest

from tests.engine.bed import Bed, at, check, check_moved, check_zero
from tests.support.victim import MREMAP_DONTUNMAP

pytestmark = pytest.mark.uffd


async def test_fault_at_the_new_place(bed: Bed) -> None:
    """After a move, the page is the one that belonged to the old place."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await check(victim, image, 5)
    await victim.move(at(0), 16, at(200))
    await check_moved(victim, image, 200, 16, origin=0)
    await check(victim, image, 16, 48)
    await bed.until_counted(events_remap=1)
    await bed.until_counted(pages_dropped=0)


async def test_drain_at_the_new_place(bed: Bed) -> None:
    """The drain fills what has moved, up and down, where it is now."""
    victim, image = bed.serve([(100, 64)], [(100, 64)])
    await victim.move(at(100), 16, at(0))
    await victim.move(at(140), 16, at(300))
    await bed.release()
    assert bed.counters.pages_drain == 64
    await check_moved(victim, image, 0, 16, origin=100)
    await check_moved(victim, image, 300, 16, origin=140)
    await check(victim, image, 116, 24)
    await check(victim, image, 156, 8)


async def test_move_onto_another_region(bed: Bed) -> None:
    """What was at the destination is dropped, and what moved there is right."""
    victim, image = bed.serve([(0, 32), (64, 32)], [(0, 32), (64, 32)])
    await victim.move(at(0), 16, at(72))
    await bed.release()
    assert bed.counters.pages_dropped == 16
    await check(victim, image, 16, 16)
    await check(victim, image, 64, 8)
    await check_moved(victim, image, 72, 16, origin=0)
    await check(victim, image, 88, 8)


async def test_move_of_a_hole_onto_a_region(bed: Bed) -> None:
    """Where pages that the image does not have are moved, they are zero there."""
    victim, image = bed.serve([(0, 32), (64, 32)], [(64, 32)])
    await victim.move(at(0), 16, at(72))
    await bed.release()
    await check_zero(victim, 72, 16)
    await check(victim, image, 64, 8)
    await check(victim, image, 88, 8)


async def test_partial_move_cuts_the_region(bed: Bed) -> None:
    """The middle of a region moves, its ends stay."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await victim.move(at(20), 9, at(500))
    await check_moved(victim, image, 503, 1, origin=23)
    await check(victim, image, 19)
    await check(victim, image, 29)
    await bed.release()
    await check_moved(victim, image, 500, 9, origin=20)
    await check(victim, image, 0, 20)
    await check(victim, image, 29, 35)


async def test_there_and_back(bed: Bed) -> None:
    """A mapping that returns to where it was is as it was."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    for _ in range(20):
        await victim.move(at(8), 16, at(300))
        await victim.move(at(300), 16, at(8))
    await bed.release()
    await check(victim, image, 0, 64)


async def test_two_mappings_trade_places(bed: Bed) -> None:
    """Three moves that swap two mappings swap their pages."""
    victim, image = bed.serve([(0, 16), (32, 16)], [(0, 16), (32, 16)])
    await victim.move(at(0), 16, at(100))
    await victim.move(at(32), 16, at(0))
    await victim.move(at(100), 16, at(32))
    await check_moved(victim, image, 4, 2, origin=36)
    await bed.release()
    await check_moved(victim, image, 0, 16, origin=32)
    await check_moved(victim, image, 32, 16, origin=0)


async def test_grown_part_is_zero(bed: Bed) -> None:
    """A mapping that grows in its place is zero in the part that it gained."""
    victim, image = bed.serve([(0, 16)], [(0, 16)])
    assert await victim.grow(at(0), 16, 48) == at(0)
    await check_zero(victim, 16, 32)
    await check(victim, image, 0, 16)


async def test_growth_that_has_to_move(bed: Bed) -> None:
    """A mapping that finds no room moves, and is zero in the part that it gained."""
    victim, image = bed.serve([(0, 16), (16, 16)], [(0, 16), (16, 16)])
    # One registration is one mapping unless its neighbour differs: a guard keeps it from growing.
    addr = await victim.grow(at(0), 16, 48)
    assert addr != at(0)
    assert await victim.read(addr, 48) == image.bytes(at(0), 16) + bytes(32 * 4096)
    await bed.release()
    await check(victim, image, 16, 16)


async def test_dontunmap_leaves_zeros_behind(bed: Bed) -> None:
    """With MREMAP_DONTUNMAP the pages go and the old place stays, empty."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await check(victim, image, 18)
    await victim.move(at(16), 16, at(200), MREMAP_DONTUNMAP)
    await check_zero(victim, 16, 8)
    await check_moved(victim, image, 204, 4, origin=20)
    await bed.release()
    await check_zero(victim, 16, 16)
    await check_moved(victim, image, 200, 16, origin=16)
    await check(victim, image, 0, 16)
    await check(victim, image, 32, 32)


async def test_giving_up_what_has_moved(bed: Bed) -> None:
    """MADV_DONTNEED and munmap at the new place concern what has moved there."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await victim.move(at(0), 32, at(200))
    await victim.discard(at(204), 4)
    await victim.munmap(at(216), 4)
    await bed.release()
    assert bed.counters.pages_dropped == 8
    await check_moved(victim, image, 200, 4, origin=0)
    await check_zero(victim, 204, 4)
    await check_moved(victim, image, 208, 8, origin=8)
    await check_moved(victim, image, 220, 12, origin=20)


async def test_moves_while_draining(bed: Bed) -> None:
    """Mappings that move ahead of the drain and behind it are filled, wherever they are."""
    victim, image = bed.serve([(0, 8192)], [(0, 8192)])
    bed.restore.release()
    for i in range(8):
        await victim.move(at(1024 * i), 512, at(20000 - 1024 * i))
    await bed.release()
    for i in range(8):
        await check_moved(victim, image, 20000 - 1024 * i, 512, origin=1024 * i)
        await check(victim, image, 1024 * i + 512, 512)
