"""Threads that help a worker to fill: they are quick, and know when to stop."""

from __future__ import annotations

import asyncio
import time

import pytest

from lazypagesd.engine.pace import LAZY, Pace
from lazypagesd.engine.recorder import StepKind
from lazypagesd.engine.session import Session
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.native import lib
from lazypagesd.sources.testing import Delayed
from tests.engine.bed import Bed, Runs, at, check, check_zero
from tests.engine.test_hammer import HAMMERS
from tests.support.image import Image, wrong_pages
from tests.support.rings import all_of
from tests.support.victim import DEADLINE_S, Victim

pytestmark = pytest.mark.uffd

NEVER_NS = 2**64 - 1


def help_always(bed: Bed) -> None:
    """Let helpers help sessions of any size, however busy the processors are."""
    for worker in bed.engine.workers:
        worker.pointer.helped_from_pages = 1
        worker.pointer.helper_wait_ns = NEVER_NS


def drained(bed: Bed) -> list[int]:
    """Return the addresses at which drain has filled, one after the other."""
    steps = all_of(bed.engine.recorders[0].steps)
    return [step.addr for step in steps if step.kind == StepKind.DRAIN]


def was_helped(bed: Bed) -> bool:
    """Return whether drain was in more than one place at a time: a worker goes up."""
    addresses = drained(bed)
    return addresses != sorted(addresses)


def serve_slowly(bed: Bed, nr_pages: int, runs: Runs) -> tuple[Victim, Image]:
    """Let the worker wait for each piece, so that helpers come to theirs, however busy it is."""
    victim, image = bed.victim((0, nr_pages)), bed.image(*runs)
    bed.attach(victim, image, source=bed.blocking_source(image))
    help_always(bed)
    return victim, image


async def test_helper_fills_a_part(bed: Bed) -> None:
    """A large session is filled by two threads, and each page is counted once."""
    victim, image = serve_slowly(bed, 16384, [(0, 16384)])
    await bed.release()
    assert was_helped(bed)
    assert bed.counters.pages_drain == 16384
    await check(victim, image, 0, 16384)


async def test_helper_fills_a_part_of_what_is_fragmented(bed: Bed) -> None:
    """Pages that lie one by one are a job together."""
    victim, image = serve_slowly(bed, 8192, [(page, 1) for page in range(0, 8192, 2)])
    await bed.release()
    assert was_helped(bed)
    assert bed.counters.pages_drain == 4096
    await check(victim, image, 0, 8192)


async def test_helper_fills_while_somebody_faults(bed: Bed) -> None:
    """Faults take back some of what helpers have not done, and each page is counted once."""
    victim, image = serve_slowly(bed, 16384, [(0, 16384)])
    victim.begin_reading(at(0), 1, nr_threads=8, step_pages=1)
    bed.restore.release()
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 8)) == []
    async with asyncio.timeout(DEADLINE_S):
        while bed.session.final is None:
            await check(victim, image, 16383 - bed.counters.faults)
    assert was_helped(bed)
    counted = bed.counters
    assert counted.pages_drain + counted.pages_neighbour + counted.pages_fault == 16384
    await check(victim, image, 0, 16384)


async def test_nobody_helps_a_small_session(bed: Bed) -> None:
    """To wake another would cost more than it takes."""
    victim, image = bed.serve([(0, 1000)], [(0, 1000)])
    await bed.release()
    assert not was_helped(bed)
    await check(victim, image, 0, 1000)


async def test_nobody_helps_a_session_that_is_paced(bed: Bed) -> None:
    """What has a rate is filled by its worker alone, which knows the rate."""
    victim, image = bed.serve([(0, 4096)], [(0, 4096)])
    help_always(bed)
    bed.session.set_pace(Pace(1 << 30))
    await bed.release()
    assert not was_helped(bed)
    await check(victim, image, 0, 4096)


async def let_helper_read(bed: Bed, cold: Delayed, victim: Victim, image: Image) -> Session:
    """Drain what is *cold*, and return once a helper waits for it."""
    session = bed.attach(victim, image, source=cold.as_source())
    help_always(bed)
    await bed.until_asleep()
    session.drain()
    await bed.until(lambda: first_job(session) == lib.LPD_JOB_READING, "a helper reads")
    return session


def first_job(session: Session) -> int:
    """Return the state of the first job of the first helper."""
    assert session.worker is not None
    state: int = session.worker.pointer.helpers[0].jobs[0].state
    return state & ~lib.LPD_JOB_SUSPENDED


@pytest.mark.root
async def test_what_a_helper_reads_is_not_filled_once_it_was_dropped(bed: Bed) -> None:
    """A helper that waits for its disk keeps nobody from being served, and fills nothing of what
    has been dropped, or unmapped, before its bytes come."""
    image = bed.image((0, 512))
    victim = bed.victim((0, 512), (600, 1))
    with Delayed(image.path.read_bytes()) as cold:
        session = await let_helper_read(bed, cold, victim, image)
        await victim.discard(at(0), 256)
        await victim.do("munmap", at(300), 16 * PAGE_SIZE)
        await bed.until_counted(events_remove=1, events_unmap=1)
        assert first_job(session) == lib.LPD_JOB_REVOKED
        await asyncio.to_thread(cold.wait_for_read, DEADLINE_S)
        cold.release()
        await bed.release()
        await check_zero(victim, 0, 256)
        await check(victim, image, 256, 44)
        await check(victim, image, 316, 196)
        assert session.counters.pages_drain == 512 - 256 - 16


@pytest.mark.root
async def test_helper_is_not_disturbed_by_faults(bed: Bed) -> None:
    """A fault says nothing of other pages: only a helper that has the very page must let go."""
    image = bed.image((0, 512))
    victim = bed.victim((0, 512), (600, 1))
    with Delayed(image.path.read_bytes()) as cold:
        session = await let_helper_read(bed, cold, victim, image)
        assert session.worker is not None
        worker = session.worker.pointer
        worker.helper_wait_ns = 0
        await check_zero(victim, 600)
        assert first_job(session) == lib.LPD_JOB_READING
        # Who may lack a processor is left alone for a while.
        assert worker.helpers[0].rests_until_ns > 0
        start = worker.helpers[0].jobs[0].runs[0].start
        victim.begin_reading(start)
        await bed.until(lambda: first_job(session) == lib.LPD_JOB_REVOKED, "it lets go")
        cold.release()
        await bed.release()
        assert wrong_pages(await victim.end_reading(), image.bytes(start, 1)) == []
        await check(victim, image, 0, 512)
        counted = session.counters
        assert counted.pages_drain + counted.pages_neighbour + counted.pages_fault == 512


@pytest.mark.root
async def test_helper_stops_once_nothing_is_to_be_drained(bed: Bed) -> None:
    """What an operator has slowed down is not filled at the pace of before."""
    victim, image = bed.victim((0, 512)), bed.image((0, 512))
    with Delayed(image.path.read_bytes()) as cold:
        session = await let_helper_read(bed, cold, victim, image)
        session.set_pace(LAZY)
        await bed.until(lambda: first_job(session) == lib.LPD_JOB_REVOKED, "it lets go")
        cold.release()
        await check(victim, image, 0, 512)
        assert session.counters.pages_drain == 0


@pytest.mark.root
async def test_worker_leaves_drain_to_helpers_between_faults_here_and_there(bed: Bed) -> None:
    """The next fault need not wait for a piece of drain; but once no more come the worker goes
    on, whatever becomes of its helpers."""
    image = bed.image((0, 256), (256, 256))
    victim = bed.victim((0, 512))
    halves = image.page_map()
    halves.regions[1].source = 1
    with Delayed(image.path.read_bytes()) as cold:
        sources = [bed.source(image), cold.as_source()]
        session = bed.restore.add("0", victim.hand_over(), halves, sources, pidfd=None)
        bed.roots.append(session)
        help_always(bed)
        await check(victim, image, 100)
        await bed.until_asleep()
        began_ns = time.monotonic_ns()
        session.drain()
        await bed.until(lambda: session.state.pointer.nr_missing == 256, "its half is filled")
        steps = all_of(bed.engine.recorders[0].steps)
        assert steps[0].kind == StepKind.NEIGHBOUR
        assert all(step.time_ns - began_ns >= 500_000 for step in steps if step.kind == "drain")
        cold.release()
        await bed.release()
        await check(victim, image, 0, 512)


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
