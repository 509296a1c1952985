"""fork: the child misses what its parent misses, and gets a session of its own."""

from __future__ import annotations

import asyncio

import pytest

from lazypagesd.engine.session import End
from lazypagesd.images.mm import PAGE_SIZE
from tests.engine.bed import Bed, at, check, check_zero

pytestmark = pytest.mark.uffd

MADV_DONTFORK = 10  # asm-generic/mman-common.h


async def test_child_gets_what_the_parent_has_not_got(bed: Bed) -> None:
    """Both read right pages, whether they were filled before the fork or by nobody yet."""
    victim, image = bed.serve([(0, 64)], [(0, 48)])
    await check(victim, image, 0, 16)
    child = await victim.fork()
    await check(child, image, 0, 64)
    parent_session, child_session = bed.restore.sessions
    assert child_session.name == "victim-0.1"
    assert parent_session.counters.nr_missing == 32
    await bed.until_counted(child_session, pages_fault=32)
    await check(victim, image, 16, 48)


async def test_child_begins_with_the_pages_that_its_parent_misses(bed: Bed) -> None:
    """The child's session starts where its parent's was."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await check(victim, image, 0, 10)
    await victim.discard(at(10), 4)
    child = await victim.fork()
    await bed.until(lambda: len(bed.restore.sessions) == 2, "session of the child")
    assert bed.restore.sessions[1].state.nr_missing == 50
    assert bed.restore.sessions[1].counters.faults == 0
    await check_zero(child, 10, 4)
    await check(child, image, 14, 50)


async def test_what_either_writes_is_its_own(bed: Bed) -> None:
    """A write of the parent is not seen by the child, nor the other way round."""
    victim, image = bed.serve([(0, 16)], [(0, 16)])
    await victim.write(at(0), 0x11)
    child = await victim.fork()
    await victim.write(at(1), 0x22)
    await child.write(at(2), 0x33)
    await bed.release()
    assert await child.read(at(0)) == b"\x11" * PAGE_SIZE
    await check(child, image, 1)
    await check(victim, image, 2)
    await check(child, image, 3, 13)
    await check(victim, image, 3, 13)


async def test_what_the_child_was_not_given_is_not_filled_in(bed: Bed) -> None:
    """Where the parent's memory was kept from the child, what the child has grown is zero."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await victim.do("madvise", at(32), 32 * PAGE_SIZE, MADV_DONTFORK)
    child = await victim.fork()
    # Before that nobody could tell: docs/explanation/correctness.md.
    await bed.until(lambda: len(bed.restore.sessions) == 2, "the child's session")
    assert await child.do("mremap", at(0), 32 * PAGE_SIZE, 64 * PAGE_SIZE, 0, 0) == at(0)
    await check_zero(child, 32, 32)
    await check(child, image, 0, 32)
    await check(victim, image, 0, 64)


async def test_what_either_gives_up_is_its_own(bed: Bed) -> None:
    """After the fork, an munmap, a move or a MADV_DONTNEED of the one is nothing to the other."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    child = await victim.fork()
    await victim.discard(at(0), 8)
    await child.munmap(at(8), 8)
    await child.move(at(16), 8, at(100))
    await bed.release()
    await check_zero(victim, 0, 8)
    await check(child, image, 0, 8)
    await check(victim, image, 8, 56)
    await check(child, image, 24, 40)
    assert await child.read(at(100), 8) == image.bytes(at(16), 8)


async def test_fork_after_a_move(bed: Bed) -> None:
    """The child finds pages where the parent has moved them, and nothing where they were."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    await victim.move(at(0), 16, at(200))
    child = await victim.fork()
    assert await child.read(at(200), 16) == image.bytes(at(0), 16)
    await bed.release()
    await check(child, image, 16, 48)
    assert await victim.read(at(200), 16) == image.bytes(at(0), 16)


async def test_grandchild(bed: Bed) -> None:
    """A child's child is served like the child."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    child = await victim.fork()
    await check(child, image, 0, 8)
    grandchild = await child.fork()
    await check(grandchild, image, 0, 64)
    await bed.release()
    names = [session.name for session in bed.restore.sessions]
    assert names == ["victim-0", "victim-0.1", "victim-0.1.1"]
    await check(child, image, 0, 64)
    await check(victim, image, 0, 64)


async def test_parent_that_exits_first(bed: Bed) -> None:
    """A child goes on to be filled when its parent is no more."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    child = await victim.fork()
    victim.exit()
    await bed.until_ended(bed.session, End.GONE)
    await check(child, image, 0, 64)


async def test_parent_that_exits_at_once(bed: Bed) -> None:
    """A process that forks and exits, again and again, as daemons do, loses no page."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    for _ in range(50):
        victim.exit_after_fork()
        victim = await victim.accept()
    await check(victim, image, 0, 64)


async def test_child_that_exits(bed: Bed) -> None:
    """The session of a child that has exited ends, and its parent's goes on."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    child = await victim.fork()
    await check(child, image, 0, 8)
    child.exit()
    await bed.until_ended(bed.restore.sessions[1], End.GONE)
    await check(victim, image, 0, 64)


async def test_fork_after_everything_is_in(bed: Bed) -> None:
    """When the session has ended, forks are nobody's business, and memory is right."""
    victim, image = bed.serve([(0, 64)], [(0, 48)])
    await bed.release()
    child = await victim.fork()
    await check(child, image, 0, 64)
    assert len(bed.restore.sessions) == 1


async def test_fork_of_one_that_has_it_all_but_waits(bed: Bed) -> None:
    """Before the release, a child of a process that misses nothing is served all the same."""
    victim, image = bed.serve([(0, 64)], [(0, 48)])
    await check(victim, image, 0, 48)
    child = await victim.fork()
    await check_zero(child, 48, 16)
    await bed.release()
    assert len(bed.restore.sessions) == 2
    await check(child, image, 0, 64)


async def test_forks_while_draining(bed: Bed) -> None:
    """Children that are forked in the midst of the drain are right."""
    victim, image = bed.serve([(0, 16384)], [(0, 16384)])
    bed.restore.release()
    children = [await victim.fork() for _ in range(5)]
    await bed.release()
    assert len(bed.restore.sessions) > 1
    for member in (victim, *children):
        await check(member, image, 16000, 384)
        await check(member, image, 0, 64)


async def test_forks_by_many_threads_at_once(bed: Bed) -> None:
    """When several threads fork together, each child gets its session."""
    victim, image = bed.serve([(0, 32)], [(0, 32)])
    forking = asyncio.create_task(victim.do("forks", 16))
    children = [await victim.accept() for _ in range(16)]
    await forking
    await asyncio.gather(*(check(child, image, 0, 32) for child in children))
    assert len(bed.restore.sessions) == 17
    await check(victim, image, 0, 32)
