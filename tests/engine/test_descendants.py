"""Families: many descendants, and forks that fail, at each place where the kernel can give up.

Some facts (kernel/fork.c, and tried): a fork that is refused at once (RLIMIT_NPROC) tells nobody.
One that fails while it copies the mappings takes back what it was about to tell. But a FORK event
is queued as soon as those are copied, and its caller waits there until it has been read; what
comes after that (a pid, the pids cgroup) may still fail, and then the event has told of a child
that never ran: its descriptor answers ESRCH.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Iterator

import pytest

from lazypagesd.engine.session import End
from lazypagesd.images.mm import PAGE_SIZE
from tests.engine.bed import Bed, at, check
from tests.support.image import wrong_pages
from tests.support.memory_cgroup import MemoryCgroup, is_there
from tests.support.victim import DEADLINE_S, Victim

pytestmark = pytest.mark.uffd

NOBODY = 65534
NR_MAPPINGS = 30_000
PROT_READ = 1  # sys/mman.h


async def fail_to_fork(victim: Victim, command: str = "fork", *args: int) -> int:
    """Let the process fork, see that fail, and return the errno."""
    with pytest.raises(OSError) as caught:
        await victim.do(command, *args)
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.fixture
def cgroup() -> Iterator[MemoryCgroup]:
    """Make a memory cgroup."""
    with MemoryCgroup() as made:
        yield made


# ---- many ----


async def test_two_hundred_descendants(bed: Bed) -> None:
    """Two hundred processes, each a child of one that was before, fault and are drained at the
    same time, and are all right."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    family = [victim]
    for i in range(200):
        family.append(await family[i // 2].fork())
    await asyncio.gather(*(check(member, image, i % 32, 16) for i, member in enumerate(family)))
    await bed.release()
    assert len(bed.restore.sessions) == 201
    await asyncio.gather(*(check(member, image, 0, 64) for member in family))


async def test_child_faults_while_its_parent_is_drained(bed: Bed) -> None:
    """A child that is forked amid the drain reads what its parent had not got by then."""
    victim, image = bed.serve([(0, 8192)], [(0, 8192)])
    bed.restore.release()
    child = await victim.fork()
    child.begin_reading(at(7680), 64, nr_threads=8, step_pages=64)
    assert wrong_pages(await child.end_reading(), image.bytes(at(7680), 512)) == []
    await bed.release()
    await check(victim, image, 7680, 512)


async def test_parent_that_exits_before_its_children_are_drained(bed: Bed) -> None:
    """The children's sessions take nothing from their parent's when it is over."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    children = [await victim.fork() for _ in range(4)]
    victim.exit()
    await asyncio.to_thread(victim.family.reap)
    bed.engine._probe()
    await bed.until_ended(bed.session, End.GONE)
    bed.restore.release()
    for child, session in zip(children, bed.restore.sessions[1:], strict=True):
        await bed.until_ended(session, End.DRAINED)
        await check(child, image, 0, 64)


# ---- forks that fail ----


async def test_fork_that_is_refused_at_once(bed: Bed) -> None:
    """A fork that fails for RLIMIT_NPROC tells of no child, and the process goes on."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    resource.prlimit(victim.pid, resource.RLIMIT_NPROC, (0, 0))
    victim.call("setuid", NOBODY)  # root may have as many as it likes
    assert await fail_to_fork(victim) == errno.EAGAIN
    await check(victim, image, 0, 16)
    await bed.release()
    assert bed.counters.events_fork == 0
    assert len(bed.restore.sessions) == 1
    await check(victim, image, 0, 64)


async def test_fork_that_fails_once_it_was_told_of(bed: Bed) -> None:
    """The session of a child that never ran ends; the process goes on, can fork, and all of it
    is right."""
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    assert await fail_to_fork(victim, "forkas", os.getpid()) == errno.EEXIST
    await bed.until_counted(events_fork=1)
    await bed.until(lambda: len(bed.restore.sessions) == 2, "session of the child")
    await check(victim, image, 0, 16)
    child = await victim.fork()
    await check(child, image, 0, 32)
    bed.engine._probe()
    await bed.until_ended(bed.restore.sessions[1], End.GONE)
    bed.restore.release()
    await bed.restore.wait_ended()
    assert [session.end for session in bed.restore.sessions] == [
        End.DRAINED,
        End.GONE,
        End.DRAINED,
    ]
    await check(victim, image, 0, 64)
    await check(child, image, 0, 64)


async def test_many_forks_that_fail(bed: Bed) -> None:
    """However many children never run, before the drain and amid it, nothing is left of them."""
    victim, image = bed.serve([(0, 4096)], [(0, 4096)])
    for i in range(100):
        if i == 50:
            bed.restore.release()
        assert await fail_to_fork(victim, "forkas", os.getpid()) == errno.EEXIST
    async with asyncio.timeout(DEADLINE_S):
        await bed.restore.wait_ended()
    # Those before the drain in any case, though it may be later that they take effect.
    assert bed.counters.events_fork >= 50
    assert bed.session.end is End.DRAINED
    assert bed.restore.sessions[1].end is End.GONE
    assert bed.engine.sessions == set()
    await check(victim, image, 0, 4096)


# There is no other way to it than a cgroup that few machines have: see test_memory_limit.py.
if is_there():

    async def test_fork_that_fails_amid_the_copying(bed: Bed, cgroup: MemoryCgroup) -> None:
        """A fork for whose mappings there is no memory tells of no child, and the process goes
        on."""
        victim, image = bed.serve([(0, NR_MAPPINGS)], [(0, 64)])
        victim.call("stripe", at(0), NR_MAPPINGS * PAGE_SIZE, PROT_READ)
        cgroup.admit(victim.pid)
        cgroup.limit(2 << 20)  # less than that takes, and enough for all before it
        assert await fail_to_fork(victim) == errno.ENOMEM
        await check(victim, image, 0, 16)
        assert bed.counters.events_fork == 0
        cgroup.limit(-1)
        child = await victim.fork()
        await bed.release()
        assert bed.counters.events_fork == 1
        await check(victim, image, 0, 64)
        await check(child, image, 0, 64)
