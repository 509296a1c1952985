"""How a worker waits: asking for messages beside faults that come close behind each other, and
asleep otherwise."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lazypagesd.engine.worker import MAX_POLL_NS, Worker
from tests.engine.bed import Bed, check
from tests.support.image import Image
from tests.support.victim import Victim

pytestmark = pytest.mark.uffd

NR_PAGES = 2048


def serve(bed: Bed) -> tuple[Victim, Image, Worker]:
    """Serve a process that nobody fills but its own faults, and say by which worker."""
    victim, image = bed.serve([(0, NR_PAGES)], [(0, NR_PAGES)])
    return victim, image, bed.engine.workers[0]


@contextmanager
def hog(cpu: int) -> Iterator[None]:
    """Let somebody else want a processor all the time."""
    command = ["taskset", "-c", str(cpu), "sh", "-c", "while :; do :; done"]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


async def test_worker_polls_beside_faults(bed: Bed) -> None:
    """Faults that come close behind each other let it ask for more of them, and none is lost."""
    victim, image, worker = serve(bed)
    await check(victim, image, 0, NR_PAGES)
    assert worker.statistics.polled_ns > 0


async def test_worker_that_may_not_poll_sleeps(bed: Bed) -> None:
    """With no time to ask in, it sleeps between any two faults."""
    victim, image, worker = serve(bed)
    bed.engine.let_poll(0)
    await check(victim, image, 0, NR_PAGES)
    assert worker.statistics.polled_ns == 0


async def test_worker_that_may_poll_no_longer_sleeps(bed: Bed) -> None:
    """Whatever it has learnt before."""
    victim, image, worker = serve(bed)
    await check(victim, image, 0, NR_PAGES // 2)
    bed.engine.let_poll(0)
    await bed.until_asleep()
    polled_ns = worker.statistics.polled_ns
    assert polled_ns > 0
    await check(victim, image, NR_PAGES // 2, NR_PAGES // 2)
    assert worker.statistics.polled_ns == polled_ns


async def test_quiet_worker_sleeps(bed: Bed) -> None:
    """Who was woken, and by no fault, does not ask for faults."""
    victim, image, worker = serve(bed)
    await check(victim, image, 0, NR_PAGES)
    await bed.until_asleep()
    polled_ns = worker.statistics.polled_ns
    for _ in range(10):
        await bed.until(worker.has_turned, "a turn")
    await bed.until_asleep()
    assert worker.statistics.polled_ns == polled_ns


async def test_worker_learns_when_polling_is_in_vain(bed: Bed) -> None:
    """Where faults come later than it would ever ask for, it soon stops asking."""
    victim, image, worker = serve(bed)
    worker.pointer.poll_ns = MAX_POLL_NS
    bed.engine.let_poll(1)
    for page in range(0, 64, 2):
        await check(victim, image, page)
        # The victim's next fault is a round trip away: longer than any worker polls.
        await bed.until_asleep()
    assert worker.pointer.poll_ns == 0


@contextmanager
def leaving(cpu: int) -> Iterator[None]:
    """Let this thread run elsewhere, if it may."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before - {cpu} or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_to_the_first(worker: Worker) -> int:
    """Let the worker run on one processor alone, which is returned."""
    cpu = min(os.sched_getaffinity(0))
    assert worker.thread_id is not None
    os.sched_setaffinity(worker.thread_id, {cpu})
    return cpu


async def test_worker_notices_that_others_use_its_processor(bed: Bed) -> None:
    """What it loses to others who run where it asks is counted, and is soon too much."""
    victim, image, worker = serve(bed)
    with hog(pin_to_the_first(worker)):
        for page in range(0, NR_PAGES, 64):
            await check(victim, image, page, 64)
            if worker.pointer.poll_credit_ns < 0:
                return
    raise AssertionError(f"it has lost too little: {worker.pointer.poll_credit_ns}")


async def test_worker_notices_that_faults_come_from_its_processor(bed: Bed) -> None:
    """It asks for them ever less often: nobody has to be woken for them."""
    victim, image, worker = serve(bed)
    cpu = pin_to_the_first(worker)
    os.sched_setaffinity(victim.pid, {cpu})
    with leaving(cpu):
        for page in range(NR_PAGES):
            # Others may take its time as well, and are not what this is about.
            worker.pointer.poll_credit_ns = 2_000_000
            await check(victim, image, page)
            if worker.pointer.max_sleeps > 1:
                return
    raise AssertionError("it has not noticed, or only once")


@pytest.mark.root
async def test_worker_notices_that_faults_come_from_elsewhere(bed: Bed) -> None:
    """It goes on to ask now and then, and hears of it."""
    victim, image, worker = serve(bed)
    os.sched_setaffinity(victim.pid, {max(os.sched_getaffinity(0))})
    pin_to_the_first(worker)
    assert worker.thread_id is not None
    # Before others, whatever the machine does beside the test.
    os.sched_setscheduler(worker.thread_id, os.SCHED_FIFO, os.sched_param(1))
    worker.pointer.max_sleeps = worker.pointer.nr_sleeps = 31
    await check(victim, image, 0, NR_PAGES)
    assert worker.pointer.max_sleeps == 0


async def test_worker_that_has_polled_for_long_sleeps(bed: Bed) -> None:
    """However well it pays: only beside one who sleeps is room for whoever is woken."""
    victim, image, worker = serve(bed)
    await bed.until_asleep()
    worker.pointer.poll_ns = MAX_POLL_NS
    worker.pointer.nr_polls = 127
    await check(victim, image, 0)
    await bed.until_asleep()
    assert worker.statistics.polled_ns == 0
    assert worker.pointer.nr_polls == 0


async def test_worker_that_has_lost_too_much_sleeps(bed: Bed) -> None:
    """It asks no more before it has waited for much longer than it had lost."""
    victim, image, worker = serve(bed)
    worker.pointer.poll_credit_ns = -(10**12)
    await check(victim, image, 0, NR_PAGES)
    assert worker.statistics.polled_ns == 0
    assert -(10**12) < worker.pointer.poll_credit_ns < 0
