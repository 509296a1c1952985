"""Workers, and the sessions that are spread over them."""

from __future__ import annotations

import asyncio

import pytest

from lazypagesd.engine.session import End
from tests.engine.bed import Bed, check

TWO_WORKERS = pytest.mark.parametrize("bed", [2], indirect=True)

pytestmark = pytest.mark.uffd


@TWO_WORKERS
async def test_sessions_are_spread_over_the_workers(bed: Bed) -> None:
    """A session goes to the worker that has the fewest."""
    for _ in range(6):
        bed.serve([(0, 4)], [(0, 4)])
    assert [len(worker.sessions) for worker in bed.engine.workers] == [3, 3]


@TWO_WORKERS
async def test_many_sessions_are_filled_side_by_side(bed: Bed) -> None:
    """Eight processes that fault and are drained at the same time are all right."""
    served = [bed.serve([(0, 1024)], [(0, 1000)]) for _ in range(8)]
    await asyncio.gather(*(check(victim, image, 100, 64) for victim, image in served))
    bed.restore.release()
    await asyncio.gather(*(check(victim, image, 0, 1024) for victim, image in served))
    await bed.release()


@TWO_WORKERS
async def test_processes_that_fork_on_several_workers(bed: Bed) -> None:
    """A child's session may be another worker's than its parent's, and both are right."""
    victim, image = bed.serve([(0, 512)], [(0, 512)])
    children = [await victim.fork() for _ in range(6)]
    bed.restore.release()
    await asyncio.gather(*(check(member, image, 0, 512) for member in (victim, *children)))
    await bed.release()


async def test_session_that_ends_is_let_go_of(bed: Bed) -> None:
    """Neither engine nor worker keeps a session that is over."""
    bed.serve([(0, 64)], [(0, 64)])
    await bed.release()
    assert bed.engine.sessions == set()
    assert bed.engine.workers[0].sessions == {}


async def test_one_process_that_ends_does_not_touch_another(bed: Bed) -> None:
    """Sessions of one worker end each for itself."""
    first, _ = bed.serve([(0, 64)], [(0, 64)])
    second, image = bed.serve([(0, 64)], [(0, 64)])
    first.exit()
    await bed.until_ended(bed.session, End.GONE)
    await check(second, image, 0, 64)


async def test_engine_stops_without_having_served_anything(bed: Bed) -> None:
    """Start and stop leave no thread and no descriptor."""
    assert bed.engine.sessions == set()
