"""How sessions end when their process does, or when they are given up."""

from __future__ import annotations

import asyncio

import pytest

from lazypagesd.engine import engine as engine_module
from lazypagesd.engine.session import End
from tests.engine.bed import Bed, at, check, check_zero, descriptors

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
    assert "anon_inode:[userfaultfd]" not in descriptors().values()
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
    assert "anon_inode:[userfaultfd]" not in descriptors().values()
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
