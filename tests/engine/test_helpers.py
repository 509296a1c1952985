"""Threads that help a worker to fill: they are quick, and know when to stop."""

from __future__ import annotations

import asyncio

import pytest

from lazypagesd.engine.pace import Pace
from lazypagesd.engine.recorder import StepKind
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.native import lib
from lazypagesd.sources.testing import Delayed
from tests.engine.bed import Bed, at, check, check_zero
from tests.engine.test_hammer import HAMMERS
from tests.support.image import wrong_pages
from tests.support.victim import DEADLINE_S

pytestmark = pytest.mark.uffd

# Of a job, which is larger than any piece that the worker fills.
JOB_PAGES = 256


def help_always(bed: Bed, *, from_pages: int = 1) -> None:
    """Let helpers help though it is not quiet: after a piece that the worker has filled, or
    before any with *from_pages* of 0."""
    for worker in bed.engine.workers:
        worker.pointer.helped_from_pages = from_pages


def helped(bed: Bed) -> int:
    """Return how many pages helpers have filled in whole jobs."""
    steps = [step for steps in bed.engine.recorders[0].steps.read() for step in steps]
    pages = [step.len // PAGE_SIZE for step in steps if step.kind == StepKind.DRAIN]
    return sum(n for n in pages if n > lib.LPD_MAX_PIECE_PAGES)


async def test_helper_fills_a_part_when_all_is_quiet(bed: Bed) -> None:
    """A large session is filled by two threads, and each page is counted once."""
    victim, image = bed.serve([(0, 16384)], [(0, 16384)])
    await bed.release()
    assert helped(bed) >= JOB_PAGES
    assert bed.counters.pages_drain == 16384
    await check(victim, image, 0, 16384)


async def test_nobody_helps_a_session_that_is_paced(bed: Bed) -> None:
    """What has a rate is filled by its worker alone, which knows the rate."""
    victim, image = bed.serve([(0, 4096)], [(0, 4096)])
    help_always(bed)
    bed.session.set_pace(Pace(1 << 30))
    await bed.release()
    assert helped(bed) == 0
    await check(victim, image, 0, 4096)


@pytest.mark.root
async def test_what_a_helper_reads_is_not_filled_once_it_was_dropped(bed: Bed) -> None:
    """A helper that waits for its disk keeps nobody from being served, and fills nothing of what
    has been dropped, or unmapped, before its bytes come."""
    image = bed.image((0, 512))
    victim = bed.victim((0, 512), (600, 1))
    with Delayed(image.path.read_bytes()) as cold:
        session = bed.attach(victim, image, source=cold.as_source())
        help_always(bed, from_pages=0)
        session.drain()
        worker = session.worker
        assert worker is not None
        jobs = worker.pointer.helpers[0].jobs
        # By now it may have been told to stop: the request to drain is a turn of its own.
        begun = {lib.LPD_JOB_READING, lib.LPD_JOB_REVOKED}
        await bed.until(lambda: jobs[0].state in begun, "a helper reads")
        await check_zero(victim, 600)
        await victim.discard(at(0), 256)
        await victim.do("munmap", at(300), 16 * PAGE_SIZE)
        await bed.until_counted(events_remove=1, events_unmap=1)
        await asyncio.to_thread(cold.wait_for_read, DEADLINE_S)
        cold.release()
        await bed.release()
        await check_zero(victim, 0, 256)
        await check(victim, image, 256, 44)
        await check(victim, image, 316, 196)
        assert session.counters.pages_drain == 512 - 256 - 16


@HAMMERS
async def test_helpers_under_the_hammer(bed: Bed, hammer: int) -> None:
    """The drain gets done with helpers, beside threads that fault, while mappings change all the
    time."""
    victim, image = bed.serve([(0, 1024), (3000, 16)], [(0, 1024)])
    help_always(bed)
    await victim.do("hammer", hammer, at(3000), 16 * PAGE_SIZE, at(4000))
    victim.begin_reading(at(0), 128, nr_threads=8, step_pages=128)
    await bed.release()
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 1024)) == []
    assert await victim.do("hush") > 0
