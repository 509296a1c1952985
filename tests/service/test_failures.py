"""What dies beside the daemon, and when: what is lost is told of, and nothing else is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lazypagesd.engine.state import left_size
from lazypagesd.native import ffi
from lazypagesd.service.custody import KEEPER_ROOM
from tests.service.daemon import NO_GRACE, OFTEN, wait_until
from tests.service.manager import NR_RECORDERS, Manager, Numbered
from tests.service.scene import LAZY, Scene, scene
from tests.service.serving import (
    FINISHED,
    PAGE_SIZE,
    PROGRESS,
    Client,
    opening,
    regions_of,
    session,
)
from tests.service.stage import BASE, NR_PAGES, Restored
from tests.support.victim import Victim, victim_program

__all__ = ["scene", "victim_program"]

pytestmark = pytest.mark.uffd

# What a restore of one session takes, and room for one more: a child takes two.
CAPACITY = 6 + NR_RECORDERS + KEEPER_ROOM


def check(victim: Victim, restored: Restored) -> None:
    """See that each page of a process, which may be a child, is what it has to be."""
    assert asyncio.run(victim.read(BASE, NR_PAGES)) == restored.image.bytes(BASE, NR_PAGES)


def with_unstored_child(scene: Scene) -> tuple[Manager, Restored, Victim]:
    """Return a daemon that has read a FORK and could not store the child; and the two."""
    manager = scene.manager(capacity=CAPACITY)
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    child = asyncio.run(restored.victim.fork())
    manager.wait_for_log("1/0: has forked, and waits with its child: the service manager keeps")
    return manager, restored, child


def test_store_alone_is_enough(scene: Scene) -> None:
    """Where the keeper is killed at the same moment, what was stored is all that is needed, in the
    middle of a hand-off and after it."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    manager.kill_all()
    manager.restart()
    client.do(FINISHED)
    restored.check(0, 20)
    child = asyncio.run(restored.victim.fork())
    wait_until(lambda: client.do(PROGRESS).state.nr_sessions == 2, lambda: "the child's session")
    manager.kill_all()
    manager.restart()
    check(child, restored)
    restored.check()


def test_child_that_was_not_stored_is_kept_by_the_keeper(scene: Scene) -> None:
    """A child whose FORK was read, and no more, is served by the next daemon."""
    manager, restored, child = with_unstored_child(scene)
    manager.kill()
    manager.capacity *= 2
    manager.restart()
    restored.check()
    check(child, restored)


def test_child_that_was_not_stored_is_lost_aloud_without_the_keeper(scene: Scene) -> None:
    """Where the keeper is killed as well, the log says whose child reads zeros; the parent goes
    on."""
    manager, restored, child = with_unstored_child(scene)
    manager.kill_all()
    manager.restart()
    manager.wait_for_log("process restore 1/0: has forked, and the daemon died .* kill it")
    restored.check()
    assert asyncio.run(child.read(BASE, 1)) == bytes(PAGE_SIZE)


def test_daemon_that_was_stopped_goes_on(scene: Scene) -> None:
    """Who faults while the daemon is stopped waits, and goes on when it does."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    manager.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, manager.process.pid, os.WSTOPPED)
    restored.victim.begin_reading(BASE, 3)
    wait_until(lambda: manager.nr_waiting() == 1, lambda: "a thread at a page")
    manager.process.send_signal(signal.SIGCONT)
    assert asyncio.run(restored.victim.end_reading()) == restored.image.bytes(BASE, 3)
    restored.check()
    assert "taken over" not in manager.log


def test_daemon_that_was_stopped_and_is_killed_is_followed(scene: Scene) -> None:
    """Who waits for a daemon that hangs is served by the next one once a watchdog has killed
    it."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    manager.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, manager.process.pid, os.WSTOPPED)
    restored.victim.begin_reading(BASE, 3)
    wait_until(lambda: manager.nr_waiting() == 1, lambda: "a thread at a page")
    manager.kill_and_restart()
    assert asyncio.run(restored.victim.end_reading()) == restored.image.bytes(BASE, 3)
    restored.check()


def test_daemons_that_fail_to_start_lose_nothing(scene: Scene) -> None:
    """Three that end before they have begun leave everything to the fourth."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    manager.kill()
    stored = set(manager.stored)
    good, bad = manager.command, [*manager.command, "--no-such-option"]
    for _ in range(3):
        manager.begin_restart(bad)
        assert manager.process.wait() == 1
        assert set(manager.stored) == stored
    manager.restart(good)
    restored.check()


def test_manager_that_hangs_is_refused(scene: Scene) -> None:
    """What is not known to be stored is refused; what was served before goes on."""
    manager = scene.manager(times={"lazypagesd.service.custody.BARRIER_TIMEOUT_S": 0.2})
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    with manager.hanging():
        further = Numbered(manager.client())
        further.send(opening())
        assert further.answer().refused == ["the service manager has not answered in 0.2 s"]
        restored.check(0, 20)
    restored.check()
    assert client.do(PROGRESS).state.nr_missing == 0


def handed_over_without_numbers(scene: Scene, manager: Manager) -> tuple[Client, Restored]:
    """Return a client that has handed a process over, and has not finished."""
    restored = scene.restored()
    client = manager.client()
    client.do(opening())
    client.do(session(regions_of(restored.image)), restored.fd, restored.file)
    restored.close()
    return client, restored


def test_client_without_numbers_has_to_begin_anew(scene: Scene) -> None:
    """Nobody knows whether it has had its last answer, so it hears the end of the connection."""
    manager = scene.manager(times=NO_GRACE)
    client, _restored = handed_over_without_numbers(scene, manager)
    manager.kill_and_restart()
    assert client.socket.recv(1) == b""
    manager.wait_for_log("restore 1: .* the client's requests have no numbers: begin anew")


def test_restore_without_numbers_goes_on_once_it_has_finished(scene: Scene) -> None:
    """Its client has done all that it has to, though it does not hear how it ends."""
    manager = scene.manager()
    client, restored = handed_over_without_numbers(scene, manager)
    client.do(FINISHED)
    manager.kill_and_restart()
    assert client.socket.recv(1) == b""
    restored.check()
    manager.wait_for_nothing_stored()


def overwrite(fd: int, start: int) -> None:
    """Put nonsense where the bytes from *start* on were, to the end of the page."""
    os.pwrite(fd, b"\xee" * (PAGE_SIZE - start % PAGE_SIZE), start)


SPOILS: dict[str, Callable[[int], None]] = {
    "magic": lambda fd: overwrite(fd, 0),
    "counts": lambda fd: overwrite(fd, int(ffi.offsetof("struct lpd_state", "commit"))),
    "record": lambda fd: overwrite(fd, left_size(fd)),
    "cut off": lambda fd: os.ftruncate(fd, PAGE_SIZE),
}


@pytest.mark.parametrize("how", SPOILS)
def test_spoiled_state_stops_its_session_alone(scene: Scene, how: str) -> None:
    """Each way in which a state can be broken is told of; its process waits, and another goes
    on."""
    manager = scene.manager()
    good, one = scene.handed_over(manager, pace=LAZY)
    bad, other = scene.handed_over(manager, pace=LAZY)
    for client in (good, bad):
        client.do(FINISHED)
    manager.kill()
    SPOILS[how](manager.state_of("restore 2/0"))
    manager.restart()
    manager.wait_for_log("lazypagesd-session:restore 2/0.*goes on waiting")
    one.check()
    other.victim.begin_reading(BASE)
    wait_until(lambda: manager.nr_waiting() == 1, lambda: "a thread at a page")
    other.victim.kill()


def test_image_that_cannot_be_read_any_more_holds_its_faults(scene: Scene) -> None:
    """A file that was cut off meanwhile holds who touches its pages, in the next daemon too."""
    manager = scene.manager(times=OFTEN)
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    manager.kill()
    data = os.pread(restored.file, os.fstat(restored.file).st_size, 0)
    path = Path(f"/proc/self/fd/{restored.file}")
    os.truncate(path, 0)
    manager.restart()
    restored.victim.begin_reading(BASE)
    manager.wait_for_log("pages-1.img .*: the file ends before it: put the whole file back")
    path.write_bytes(data)
    assert asyncio.run(restored.victim.end_reading()) == restored.image.bytes(BASE, 1)
    restored.check()
