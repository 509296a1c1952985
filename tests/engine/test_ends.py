"""How sessions end when their process does, or when they are given up."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lazypagesd.engine import engine as engine_module
from lazypagesd.engine.session import End
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.sources.testing import Delayed
from tests.engine.bed import Bed, at, check, check_zero
from tests.support.image import wrong_pages
from tests.support.victim import Victim

pytestmark = pytest.mark.uffd

NEVER_S = 3600.0


async def test_exit_is_noticed_at_once_with_a_pidfd(bed: Bed) -> None:
    """A pidfd tells of the exit, though nobody probes."""
    assert bed.engine._timer is not None
    bed.engine._timer.cancel()
    victim, image = bed.victim((0, 16)), bed.image((0, 16))
    bed.attach(victim, image, pidfd=True)
    await check(victim, image, 3)
    victim.exit()
    await bed.until_ended(bed.session, End.GONE)
    assert bed.counters.nr_missing == 15


async def test_exit_is_found_out_without_a_pidfd(bed: Bed) -> None:
    """Without one, the next probe finds out."""
    victim, image = bed.serve([(0, 16)], [(0, 16)])
    await check(victim, image, 3)
    victim.exit()
    await asyncio.to_thread(victim.family.reap)
    assert bed.session.end is None
    bed.engine._probe()
    await bed.until_ended(bed.session, End.GONE)


async def test_exec_is_found_out(bed: Bed) -> None:
    """After an exec the process lives, but its memory is no more: gone, by the next probe."""
    victim, image = bed.victim((0, 16)), bed.image((0, 16))
    bed.attach(victim, image, pidfd=True)
    victim.exec()
    await bed.until(bed.session.is_gone, "the exec")
    bed.engine._probe()
    await bed.until_ended(bed.session, End.GONE)


async def test_exit_during_the_drain(bed: Bed) -> None:
    """A process that exits while it is drained is gone, and the restore over."""
    victim, _ = bed.serve([(0, 32768)], [(0, 32768)])
    bed.restore.release()
    victim.exit()
    async with asyncio.timeout(10):
        await bed.restore.wait_ended()
    assert bed.session.end in (End.GONE, End.DRAINED)


async def wait_in_crowds(bed: Bed, victim: Victim, nr_threads: int) -> int:
    """Let so many threads wait for a page each, and return the descriptor that nobody serves."""
    fd = victim.hand_over()
    assert await victim.do("crowd", at(0), nr_threads) == nr_threads
    await bed.until_waiting(fd, nr_threads)
    return fd


# One; more than are kept to be tried again; more than are read at once.
NR_THREADS = pytest.mark.parametrize("nr_threads", [1, 300, 1500])


@NR_THREADS
async def test_kill_with_faults_unread(bed: Bed, nr_threads: int) -> None:
    """A process that was killed before its faults were read is gone, and nobody hangs."""
    victim, image = bed.victim((0, nr_threads)), bed.image((0, 64))
    fd = await wait_in_crowds(bed, victim, nr_threads)
    victim.kill()
    await asyncio.to_thread(victim.family.reap)
    bed.attach(victim, image, fd=fd)
    bed.engine._probe()
    await bed.until_ended(bed.session, End.GONE)
    assert bed.counters.nr_missing == 64


@pytest.mark.root
@NR_THREADS
async def test_kill_with_faults_read(bed: Bed, nr_threads: int) -> None:
    """So is one that is killed while its faults, which were read, wait for the disk."""
    victim, image = bed.victim((0, nr_threads)), bed.image((0, nr_threads))
    fd = await wait_in_crowds(bed, victim, nr_threads)
    with Delayed(image.path.read_bytes()) as cold:
        bed.attach(victim, image, fd=fd, pidfd=True, source=cold.as_source())
        await bed.until(lambda: bed.counters.faults >= nr_threads, "as many faults")
        victim.kill()
        await bed.until(lambda: bed.session.end is not None, "the end")
        cold.release()
        await bed.until_ended(bed.session, End.GONE)
    assert bed.counters.pages_fault == 0


@pytest.mark.root
async def test_crowd_that_waits_for_the_disk_goes_on(bed: Bed) -> None:
    """When nobody kills it, each of more threads than are kept or read at once gets its page."""
    victim, image = bed.victim((0, 1500)), bed.image((0, 1500))
    fd = await wait_in_crowds(bed, victim, 1500)
    with Delayed(image.path.read_bytes()) as cold:
        bed.attach(victim, image, fd=fd, source=cold.as_source())
        await bed.until(lambda: bed.counters.requeues > 0, "faults too many")
        cold.release()
        # Faults that were put off take the pages behind them along.
        await bed.until(lambda: bed.counters.nr_missing == 0, "every page")
        await check(victim, image, 0, 1500)
        await bed.release()


def watched(bed: Bed) -> list[int]:
    """Return the numbers of the descriptors that the only worker sleeps on."""
    info = Path(f"/proc/self/fdinfo/{bed.engine.workers[0].pointer.epoll_fd}").read_text()
    return [int(line.split()[1]) for line in info.splitlines() if line.startswith("tfd:")]


async def test_number_of_a_descriptor_that_is_used_again(bed: Bed) -> None:
    """A session whose descriptor has the number of one that is over hears nothing of that, even
    if somebody has kept a copy of it and its process faults on."""
    first, image = bed.victim((0, 16)), bed.image((0, 16))
    second, other_image = bed.victim((0, 16)), bed.image((0, 2), (2, 14))
    fd, other = first.hand_over(), second.hand_over()
    kept = os.dup(fd)
    bed.attach(first, image, fd=fd)
    await check(first, image, 3)
    bed.engine.abandon(bed.session)
    await bed.until_ended(bed.session, End.ABANDONED)
    assert fd not in watched(bed)
    os.dup2(other, fd, inheritable=False)
    os.close(other)
    session = bed.attach(second, other_image, fd=fd)
    first.begin_reading(at(8))
    await bed.until_waiting(kept)
    await check(second, other_image, 0, 16)
    await bed.until_counted(session, faults=16, pages_fault=16)
    await bed.until_waiting(kept)  # still: nobody has read it
    os.close(kept)
    assert wrong_pages(await first.end_reading(), bytes(PAGE_SIZE)) == []


async def test_process_that_is_gone_before_it_is_served(bed: Bed) -> None:
    """A descriptor whose process has exited already makes a session that ends."""
    victim, image = bed.victim((0, 16)), bed.image((0, 16))
    fd = victim.hand_over()
    victim.exit()
    await asyncio.to_thread(victim.family.reap)
    bed.attach(victim, image, fd=fd)
    await bed.release(End.GONE)
    assert bed.counters.nr_missing == 16


async def test_abandoned_session_leaves_zeros(bed: Bed) -> None:
    """What was not filled when a session was given up reads zero, and nobody waits."""
    victim, image = bed.serve([(0, 16)], [(0, 16)])
    await check(victim, image, 3)
    bed.engine.abandon(bed.session)
    await bed.until_ended(bed.session, End.ABANDONED)
    await check(victim, image, 3)
    await check_zero(victim, 4, 12)


async def test_engine_that_stops_lets_go_of_waiting_threads(bed: Bed) -> None:
    """Stopping in the midst of faults and drain closes everything, and nobody hangs."""
    victim, _ = bed.serve([(0, 16384)], [(0, 16384)])
    victim.begin_reading(at(0), 2048, nr_threads=8, step_pages=2048)
    bed.restore.release()
    await bed.engine.stop()
    assert bed.session.final is not None
    assert bed.session.end in (End.ABANDONED, End.DRAINED)
    assert bed.new_userfaultfds() == []
    assert len(await victim.end_reading()) == 16384 * 4096
    # For the bed to stop.
    bed.engine.start()


async def test_engine_stops_while_processes_fork(bed: Bed) -> None:
    """Stopping among forks abandons children that come meanwhile, and keeps none of them."""
    victim, _ = bed.serve([(0, 64)], [(0, 64)])
    victim.begin_forking(16)
    await bed.until(lambda: len(bed.restore.sessions) > 2, "a child")
    await bed.engine.stop()
    assert bed.engine.sessions == set()
    assert bed.new_userfaultfds() == []
    bed.engine.start()


async def test_abandoned_restore_ends_while_processes_fork(bed: Bed) -> None:
    """Giving up a restore among forks ends it, children and all."""
    victim, _ = bed.serve([(0, 64)], [(0, 64)])
    victim.begin_forking(16)
    await bed.until(lambda: len(bed.restore.sessions) > 2, "a child")
    bed.restore.abandon()
    async with asyncio.timeout(10):
        await bed.restore.wait_ended()
    assert bed.engine.sessions == set()


@pytest.mark.parametrize("bed", [2], indirect=True)
async def test_process_that_exits_while_its_threads_fork(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several forks that are read together, none is lost when the parent has exited since."""
    monkeypatch.setattr(engine_module, "PROBE_INTERVAL_S", NEVER_S)
    for _ in range(10):
        victim, image = bed.victim((0, 32)), bed.image((0, 32))
        bed.attach(victim, image, pidfd=True)
        victim.begin_forking(8)
        children = [await victim.accept() for _ in range(8)]
        victim.kill()
        for child in children:
            await check(child, image, 0, 32)
