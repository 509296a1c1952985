"""What becomes of a fault, before the restore has finished and after."""

from __future__ import annotations

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from tests.engine.bed import Bed, at, check, check_zero
from tests.support.image import wrong_pages

pytestmark = pytest.mark.uffd

UFFDIO_COPY_MODE_DONTWAKE = 1


async def test_fault_is_answered_alone_before_the_release(bed: Bed) -> None:
    """Until the restore has finished, a fault brings its page and no other."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await check(victim, image, 20)
    await check(victim, image, 63)
    await bed.until_counted(pages_fault=2)
    await bed.until_counted(nr_missing=62)
    await bed.until_counted(faults=2)


async def test_nothing_is_drained_before_the_release(bed: Bed) -> None:
    """An idle session that is not released fills nothing by itself."""
    bed.serve([(0, 64)], [(0, 64)])
    other, other_image = bed.serve([(0, 64)], [(0, 64)])
    # By the time that this is answered, the worker has had its turn with both.
    await check(other, other_image, 0, 64)
    await bed.until_counted(nr_missing=64)
    await bed.until_counted(fills=0)


async def test_hole_reads_zero(bed: Bed) -> None:
    """A registered page that the image does not have is zero."""
    victim, image = bed.serve([(0, 32)], [(0, 8), (16, 8)])
    await check_zero(victim, 8, 8)
    await check(victim, image, 0, 32)
    await bed.until_counted(pages_zero=16)
    await bed.until_counted(nr_missing=0)


async def test_session_that_has_it_all_waits_for_the_release(bed: Bed) -> None:
    """A session whose pages are all in goes on to answer faults until the restore has finished."""
    victim, image = bed.serve([(0, 32)], [(0, 16)])
    await check(victim, image, 0, 16)
    assert bed.session.end is None
    await check_zero(victim, 16)
    await bed.release()


async def test_page_comes_from_its_own_region(bed: Bed) -> None:
    """Every page is the one that its region has at that place in the file."""
    runs = [(start, 3) for start in range(0, 200, 5)]
    victim, image = bed.serve([(0, 200)], runs)
    for page in (2, 0, 197, 195, 101, 57):
        await check(victim, image, page)
    await check(victim, image, 0, 200)


async def test_write_lands_on_top_of_the_page(bed: Bed) -> None:
    """A page that is first written to has the image's bytes beside what was written."""
    victim, image = bed.serve([(0, 4)], [(0, 4)])
    await victim.do("write", at(1) + 100, 10, 0xAB)
    expected = bytearray(image.bytes(at(0), 4))
    expected[PAGE_SIZE + 100 : PAGE_SIZE + 110] = b"\xab" * 10
    assert wrong_pages(await victim.read(at(0), 4), bytes(expected)) == []


async def test_fault_from_before_the_session_is_answered(bed: Bed) -> None:
    """A thread that waits when the descriptor is handed over gets its page."""
    victim, image = bed.victim((0, 4)), bed.image((0, 4))
    fd = victim.hand_over()
    victim.begin_reading(at(2))
    await bed.until_waiting(fd)
    bed.attach(victim, image, fd=fd)
    assert wrong_pages(await victim.end_reading(), image.page(at(2))) == []


async def test_threads_at_one_page_all_get_it(bed: Bed) -> None:
    """Any number of threads that touch a page at once read the same, right bytes."""
    victim, image = bed.victim((0, 4)), bed.image((0, 4))
    fd = victim.hand_over()
    victim.begin_reading(at(2), nr_threads=64)
    await bed.until_waiting(fd, 64)
    bed.attach(victim, image, fd=fd)
    assert wrong_pages(await victim.end_reading(), 64 * image.page(at(2))) == []
    await bed.until_counted(pages_fault=1)
    await bed.until_counted(faults=64)


async def test_threads_at_one_hole_all_get_zeros(bed: Bed) -> None:
    """The same holds of a page that the image does not have."""
    victim, image = bed.victim((0, 4)), bed.image((0, 2))
    fd = victim.hand_over()
    victim.begin_reading(at(3), nr_threads=32)
    await bed.until_waiting(fd, 32)
    bed.attach(victim, image, fd=fd)
    assert wrong_pages(await victim.end_reading(), bytes(32 * PAGE_SIZE)) == []
    await bed.until_counted(pages_zero=1)


async def test_more_faults_than_one_read_brings_are_answered(bed: Bed) -> None:
    """Five hundred and twelve threads at as many pages all go on."""
    victim, image = bed.victim((0, 512)), bed.image((0, 512))
    fd = victim.hand_over()
    victim.begin_reading(at(0), nr_threads=512, step_pages=1)
    await bed.until_waiting(fd, 512)
    bed.attach(victim, image, fd=fd)
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 512)) == []


async def test_page_that_is_there_already_is_left_alone(bed: Bed) -> None:
    """A page that the restore tool filled stays as it is, in a fault's neighbourhood and in the
    drain."""
    victim, image = bed.victim((0, 64)), bed.image((0, 64))
    victim.call("fill", at(0), 0x11)
    victim.call("fill", at(33), 0x22)
    victim.call("fill", at(63), 0x33)
    bed.attach(victim, image)
    await bed.release()
    assert bed.counters.pages_present == 3
    for page, byte in (0, 0x11), (33, 0x22), (63, 0x33):
        assert wrong_pages(await victim.read(at(page)), bytes([byte]) * PAGE_SIZE) == []
    await check(victim, image, 1, 32)
    await check(victim, image, 34, 29)


async def test_fault_at_a_page_that_came_meanwhile_is_let_go(bed: Bed) -> None:
    """A thread that waits for a page, which somebody else fills without waking it, reads that."""
    victim, image = bed.victim((0, 4)), bed.image((0, 4))
    victim.begin_reading(at(1))
    await bed.until_waiting(victim.uffd, pid=victim.pid)
    await victim.do("fill", at(1), 0x11, UFFDIO_COPY_MODE_DONTWAKE)
    bed.attach(victim, image)
    assert wrong_pages(await victim.end_reading(), b"\x11" * PAGE_SIZE) == []
    await bed.until_counted(pages_present=1)
    await bed.until_counted(wakes=1)
    await check(victim, image, 2, 2)


async def test_fault_at_a_hole_that_was_filled_meanwhile_is_let_go(bed: Bed) -> None:
    """The same holds of a page that the image does not have: it is not made zero."""
    victim, image = bed.victim((0, 4)), bed.image((0, 1))
    victim.begin_reading(at(2), nr_threads=2)
    await bed.until_waiting(victim.uffd, 2, pid=victim.pid)
    await victim.do("fill", at(2), 0x11, UFFDIO_COPY_MODE_DONTWAKE)
    bed.attach(victim, image)
    assert wrong_pages(await victim.end_reading(), b"\x11" * (2 * PAGE_SIZE)) == []
    await bed.until_counted(pages_zero=0, wakes=2)
