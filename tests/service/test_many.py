"""Hundreds of sessions are taken over at once; how long a process waited meanwhile is printed."""

from __future__ import annotations

import asyncio
import subprocess
import time

import pytest

from tests.service.conftest import Stage as DropinStage
from tests.service.conftest import stage
from tests.service.daemon import members, wait_until
from tests.service.scene import LAZY, Scene, scene
from tests.service.serving import FINISHED, PAGE_SIZE, PROGRESS
from tests.service.stage import BASE
from tests.service.test_keeper import kill_and_wait
from tests.support.victim import victim_program

__all__ = ["scene", "stage", "victim_program"]

pytestmark = pytest.mark.uffd

NR_SESSIONS = 500
DROPIN_PAGES = 8


def test_hundreds_of_sessions_are_recovered(scene: Scene) -> None:
    """Each of 500 processes goes on, those that were waiting and those that come later."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    victims = [restored.victim]
    while len(victims) < NR_SESSIONS:
        victims.append(asyncio.run(restored.victim.fork()))
    wait_until(
        lambda: client.do(PROGRESS).state.nr_sessions == NR_SESSIONS, lambda: "their sessions"
    )
    began = time.monotonic()
    manager.process.kill()
    for victim in victims:
        victim.begin_reading(BASE + 60 * PAGE_SIZE)
    manager.kill()
    kept = time.monotonic()
    manager.restart()
    ready = time.monotonic()
    expected = restored.image.bytes(BASE + 60 * PAGE_SIZE, 1)
    for victim in victims:
        assert asyncio.run(victim.end_reading()) == expected
    ended = time.monotonic()
    assert f"taken over from a daemon that has ended: {NR_SESSIONS} processes" in manager.log
    print(
        f"{NR_SESSIONS} sessions: {len(manager.stored)} descriptors stored again after"
        f" {kept - began:.3f} s, ready {ready - kept:.3f} s after that, the last of all processes"
        f" went on {ended - began:.3f} s after the kill"
    )


def test_hundreds_of_sessions_are_recovered_by_the_keeper(stage: DropinStage) -> None:
    """The same of the drop-in, without a service manager."""
    pids = range(10, 10 + NR_SESSIONS)
    processes = dict.fromkeys(pids, DROPIN_PAGES)
    stage.checkpoint(processes)
    # Nobody reads the statistics, which are longer than a pipe.
    daemon = stage.start("-v", "--drain", "lazy", keeper=True, stdout=subprocess.DEVNULL)
    daemon.wait_ready()
    restorer = stage.released(processes)
    began = time.monotonic()
    kill_and_wait(daemon)
    taken_over = time.monotonic()
    for pid in pids:
        restorer.check(pid, DROPIN_PAGES)
    wait_until(
        lambda: not members(daemon.process.pid), lambda: f"{members(daemon.process.pid)} to end"
    )
    print(f"{NR_SESSIONS} sessions: taken over {taken_over - began:.3f} s after the kill")
