"""The flight recorder outlives its daemon: what the last one did, the next one can tell."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lazypagesd.engine.recorder import MEMFD_NAME, Fault, Recorder
from tests.service.conftest import NR_PAGES
from tests.service.conftest import Stage as DropinStage
from tests.service.daemon import wait_until
from tests.service.manager import NR_RECORDERS, Manager
from tests.service.scene import LAZY, Scene, scene
from tests.service.serving import FINISHED, PAGE_SIZE
from tests.service.stage import BASE, Restored
from tests.service.test_keeper import daemons, kill_and_wait, start
from tests.support.rings import all_of
from tests.support.victim import victim_program

__all__ = ["scene", "victim_program"]

pytestmark = pytest.mark.uffd


def on_record(memfd: int) -> list[Fault]:
    """Return what one worker has on record; the memfd, which the call owns, is closed."""
    with Recorder.take_over(memfd) as recorder:
        return all_of(recorder.faults)


def faults(manager: Manager) -> list[Fault]:
    """Return what is on record in the store, of all workers."""
    return [fault for fd in manager.recorders() for fault in on_record(os.dup(fd))]


def pages(manager: Manager, session: int) -> list[int]:
    """Return which pages a session was asked for, counted from BASE, in order."""
    return [
        (fault.addr - BASE) // PAGE_SIZE for fault in faults(manager) if fault.session == session
    ]


def inodes(manager: Manager) -> list[int]:
    """Return which memfds the stored recorders are."""
    return [os.fstat(fd).st_ino for fd in manager.recorders()]


def touch(manager: Manager, restored: Restored, session: int, *asked: int) -> None:
    """Let a process read pages, and wait until the last of them is on record."""
    for page in asked:
        asyncio.run(restored.victim.read(BASE + page * PAGE_SIZE))
    wait_until(lambda: asked[-1] in pages(manager, session), lambda: "the last fault")


def test_recorder_goes_on_after_a_kill(scene: Scene) -> None:
    """The next daemon adds to what the last one has recorded, of the same session and others,
    each of which has a number of its own."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    touch(manager, restored, 1, 0, 3, 60)
    before = inodes(manager)
    manager.kill_and_restart()
    touch(manager, restored, 1, 5, 61)
    assert inodes(manager) == before
    assert len(before) == NR_RECORDERS
    _, other = scene.handed_over(manager, pace=LAZY)
    touch(manager, other, 2, 7)
    assert pages(manager, 1) == [0, 3, 60, 5, 61]
    assert pages(manager, 2) == [7]


def test_broken_recorder_is_replaced(scene: Scene) -> None:
    """One that cannot be read is told of, forgotten, and made anew; the process goes on."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    touch(manager, restored, 1, 0)
    manager.kill()
    broken = inodes(manager)
    for fd in manager.recorders():
        os.pwrite(fd, bytes(8), 0)
    manager.restart()
    manager.wait_for_log("lazypagesd-recorder:0.*none that we can read, ignoring")
    touch(manager, restored, 1, 5)
    assert pages(manager, 1) == [5]
    assert len(inodes(manager)) == NR_RECORDERS
    assert set(inodes(manager)).isdisjoint(broken)
    assert "cannot be taken over" not in manager.log


def test_keeper_has_the_recorder(stage: DropinStage) -> None:
    """So it is without a service manager: the drop-in that is started next has it open."""
    daemon = start(stage, "--drain", "lazy")
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    kill_and_wait(daemon)
    assert restorer.read(7, 5) == "right"
    [pid] = daemons(daemon)

    def found() -> list[Fault]:
        return [
            fault
            for path in Path(f"/proc/{pid}/fd").iterdir()
            if MEMFD_NAME in os.fspath(path.readlink())
            for fault in on_record(os.open(path, os.O_RDWR))
        ]

    wait_until(lambda: len(found()) == 2, lambda: str(found()))
    assert {fault.session for fault in found()} == {1}
    restorer.check(7, NR_PAGES)


def test_status_names_the_oldest_fault(scene: Scene) -> None:
    """What the service manager shows says how long the fault has waited that waits longest."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    idle = "1 restore, 1 session, 0 % filled, 141 pages missing, no fault waiting"
    wait_until(lambda: manager.status == idle, lambda: manager.status)
    whole = restored.image.path.read_bytes()
    restored.image.path.write_bytes(b"")
    restored.victim.begin_reading(BASE)
    wait_until(lambda: "missing, oldest fault" in manager.status, lambda: manager.status)
    assert manager.status.split()[-1] in ("us", "ms", "s")
    restored.image.path.write_bytes(whole)
