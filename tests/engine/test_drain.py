"""What is filled though nobody waits for it, and how a session that has it all ends."""

from __future__ import annotations

import pytest

from lazypagesd.engine.session import End
from lazypagesd.images.mm import PAGE_SIZE
from tests.engine.bed import Bed, at, check, check_zero
from tests.support.descriptors import descriptors
from tests.support.image import wrong_pages

pytestmark = pytest.mark.uffd


async def test_release_drains_everything(bed: Bed) -> None:
    """Once released, a session fills all that is missing, ends, and leaves right memory."""
    victim, image = bed.serve([(0, 2000)], [(0, 700), (900, 1000)])
    await bed.release()
    assert bed.session.end is End.DRAINED
    assert bed.counters.pages_drain == 1700
    await check(victim, image, 0, 2000)


async def test_descriptor_is_closed_when_all_is_in(bed: Bed) -> None:
    """The session's descriptor is closed with it, and holes read zero ever after."""
    victim, image = bed.serve([(0, 16)], [(0, 8)])
    fd = bed.session.fd
    await bed.release()
    assert str(fd) not in descriptors()
    await check(victim, image, 0, 16)
    await check_zero(victim, 8, 8)


async def test_session_without_pages_ends_at_the_release(bed: Bed) -> None:
    """A process of which nothing is lazy is served until the restore has finished."""
    victim, _ = bed.serve([(0, 4)], [])
    await check_zero(victim, 1)
    assert bed.session.end is None
    await bed.release()
    assert bed.counters.nr_pages == 0
    await check_zero(victim, 0, 4)


async def test_session_that_comes_after_the_release_is_drained(bed: Bed) -> None:
    """What is already released when its worker first sees it is drained at once."""
    victim, image = bed.serve([(0, 64)], [(0, 64)], released=True)
    await bed.until_ended(bed.session, End.DRAINED)
    await check(victim, image, 0, 64)


async def test_neighbourhood_of_a_fault_is_filled(bed: Bed) -> None:
    """A fault from before the release has its neighbourhood filled right after it."""
    victim, image = bed.serve([(0, 512)], [(0, 512)])
    await check(victim, image, 300)
    await bed.release()
    assert bed.counters.pages_fault == 1
    assert bed.counters.pages_neighbour == 15
    assert bed.counters.pages_drain == 496
    await check(victim, image, 0, 512)


async def test_neighbourhood_that_is_gone_through_is_followed(bed: Bed) -> None:
    """When the next fault comes right behind a neighbourhood, its pages were worth it; of those
    behind the last fault nobody knows."""
    victim, image = bed.serve([(0, 512)], [(0, 512)])
    # What was wished for last is filled first, here.
    await check(victim, image, 16)
    await check(victim, image, 0)
    await bed.release()
    assert bed.counters.pages_neighbour == 15 + 31
    assert bed.counters.pages_followed == 15


async def test_neighbourhoods_apart_are_not_followed(bed: Bed) -> None:
    """Faults here and there use no neighbourhood that is known to be used."""
    victim, image = bed.serve([(0, 512)], [(0, 512)])
    for page in (300, 100, 200):
        await check(victim, image, page)
    await bed.release()
    assert bed.counters.pages_neighbour == 45
    assert bed.counters.pages_followed == 0


async def test_drain_fills_many_short_runs(bed: Bed) -> None:
    """Every other page, in hundreds of regions, is drained and the gaps are zero."""
    runs = [(page, 1) for page in range(0, 1000, 2)]
    victim, image = bed.serve([(0, 1000)], runs)
    await bed.release()
    assert bed.counters.pages_drain == 500
    await check(victim, image, 0, 1000)


async def test_faults_while_draining_are_right(bed: Bed) -> None:
    """Threads that read backwards and forwards while the drain runs see right pages only."""
    victim, image = bed.serve([(0, 4096)], [(0, 4096)])
    victim.begin_reading(at(0), 512, nr_threads=8, step_pages=512)
    await bed.release()
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 4096)) == []


async def test_write_during_the_drain_stays(bed: Bed) -> None:
    """What the process writes is never overwritten by the drain."""
    victim, image = bed.serve([(0, 4096)], [(0, 4096)])
    bed.restore.release()
    await victim.write(at(4000), 0x55, 32)
    await bed.until_ended(bed.session, End.DRAINED)
    assert wrong_pages(await victim.read(at(4000), 32), b"\x55" * (32 * PAGE_SIZE)) == []
    await check(victim, image, 0, 4000)


async def test_drain_crosses_split_mappings(bed: Bed) -> None:
    """Pages are filled on both sides of, and in, a page whose protection was changed, though that
    splits the mapping without an event."""
    victim, image = bed.serve([(0, 600)], [(0, 600)])
    for page in 100, 101, 333, 599:
        await victim.do("mprotect", at(page), PAGE_SIZE, 1)  # PROT_READ
    await bed.release()
    assert bed.counters.pages_drain == 600
    await check(victim, image, 0, 600)


async def test_drain_skips_what_was_never_registered(bed: Bed) -> None:
    """Pages of the image that the process does not have are given up, the others filled."""
    victim, image = bed.serve([(0, 20), (40, 20)], [(0, 60)])
    await bed.release()
    assert bed.counters.pages_drain == 40
    assert bed.counters.pages_dropped == 20
    await check(victim, image, 0, 20)
    await check(victim, image, 40, 20)
