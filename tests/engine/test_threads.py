"""What each thread of a process has lost, where its restorer lets the kernel tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazypagesd.engine.session import Session, ThreadLoss
from lazypagesd.kernel.uffd import Feature
from lazypagesd.native import lib
from tests.engine.bed import Bed, at
from tests.support.rings import all_of
from tests.support.victim import Victim

pytestmark = pytest.mark.uffd


async def serve_threads(bed: Bed, nr_threads: int, features: int) -> tuple[Victim, set[int]]:
    """Let so many threads read four pages each; return their process, and their numbers."""
    nr_pages = 4 * nr_threads
    victim, image = bed.victim((0, nr_pages), features=features), bed.image((0, nr_pages))
    fd = victim.hand_over()
    victim.begin_reading(at(0), 4, nr_threads=nr_threads, step_pages=4)
    await bed.until_waiting(fd, nr_threads)
    tids = {int(path.name) for path in Path(f"/proc/{victim.pid}/task").iterdir()}
    bed.attach(victim, image, fd=fd)
    assert await victim.end_reading() == image.bytes(at(0), nr_pages)
    await bed.until_counted(pages_fault=nr_pages)
    return victim, tids - {victim.pid}


def nr_faults(session: Session) -> int:
    """Return how many faults are some thread's."""
    return sum(thread.faults for thread in session.threads)


async def test_threads_are_told_apart(bed: Bed) -> None:
    """Each has its own faults and what it has lost, by the number that it has over there; on
    record, too."""
    _, tids = await serve_threads(bed, 4, Feature.THREAD_ID)
    await bed.until(lambda: nr_faults(bed.session) == 16, "the last fault")
    threads = bed.session.threads
    assert {thread.tid for thread in threads} == tids
    assert all(thread.faults == 4 and thread.lost_ns > 0 for thread in threads)
    assert threads == sorted(threads, key=lambda thread: -thread.lost_ns)
    assert sum(thread.lost_ns for thread in threads) == bed.counters.latency.sum_ns
    [recorder] = bed.engine.recorders
    # Which comes after it has been counted.
    await bed.until(lambda: recorder.faults.nr_written == 16, "the last one on record")
    on_record = [fault.tid for fault in all_of(recorder.faults)]
    assert sorted(on_record) == sorted(list(tids) * 4)


async def test_without_the_feature_nothing_is_told(bed: Bed) -> None:
    """A message that has no thread in it is nobody's."""
    await serve_threads(bed, 4, 0)
    await bed.until(lambda: bed.counters.latency.count == 16, "the last fault")
    assert bed.session.threads == []


async def test_threads_that_find_no_room_are_one(bed: Bed) -> None:
    """The table has room for so many; the faults of the others are counted together."""
    nr_threads = lib.LPD_MAX_THREADS + 8
    _, tids = await serve_threads(bed, nr_threads, Feature.THREAD_ID)
    await bed.until(lambda: nr_faults(bed.session) == 4 * nr_threads, "the last fault")
    threads = {thread.tid: thread for thread in bed.session.threads}
    assert set(threads) <= tids | {0}
    assert threads[0].faults == 4 * (nr_threads - (len(threads) - 1))


async def test_child_of_a_fork_begins_anew(bed: Bed) -> None:
    """Its threads are told apart as well, and what its parent lost is not its own."""
    victim, image = bed.victim((0, 8), features=Feature.THREAD_ID), bed.image((0, 8))
    bed.attach(victim, image)
    await victim.read(at(0))
    child = await victim.fork()
    assert await child.read(at(1), 2) == image.bytes(at(1), 2)
    session = bed.restore.sessions[1]
    await bed.until(lambda: nr_faults(session) == 2, "faults of the child")
    [loss] = session.threads
    assert loss == ThreadLoss(child.pid, 2, session.counters.latency.sum_ns)
