"""A worker's sign of life."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lazypagesd.engine.worker import Worker
from lazypagesd.native import lib
from tests.native.waiting import wait_until


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker that has its descriptors, and no thread yet."""
    worker = Worker(0)
    assert lib.lpd_worker_init(worker.pointer) == 0
    yield worker
    worker.stop()


def test_worker_that_hangs_takes_no_turn(worker: Worker) -> None:
    """Who is asked for a turn and takes none is found out at the next question."""
    worker.has_turned()
    assert not worker.has_turned()
    assert not worker.has_turned()


def test_idle_worker_takes_turns(worker: Worker) -> None:
    """Who has nothing to do takes a turn whenever he is asked for one."""
    worker._spawn("worker", lib.lpd_worker_run)
    for _ in range(3):
        wait_until(worker.has_turned, "turn")


def test_idle_worker_is_not_busy(worker: Worker) -> None:
    """Its sleep is not counted, and no turn took longer than all of them."""
    assert worker.statistics.nr_turns == 0
    worker._spawn("worker", lib.lpd_worker_run)
    for _ in range(3):
        wait_until(worker.has_turned, "turn")
    statistics = worker.statistics
    assert statistics.nr_turns >= 2
    assert 0 < statistics.longest_turn_ns <= statistics.busy_ns < statistics.uptime_ns
    assert (statistics.number, statistics.nr_sessions) == (0, 0)
