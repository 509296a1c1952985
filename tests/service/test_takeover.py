"""A daemon that dies is followed by one that goes on: no process sees a wrong page, or a zero."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from lazypagesd.proto import handoff_pb2 as pb
from lazypagesd.service.custody import KEEPER_ROOM
from tests.service.daemon import NO_GRACE, wait_until
from tests.service.manager import NR_RECORDERS, Numbered
from tests.service.scene import LAZY, Scene, scene
from tests.service.serving import (
    FINISHED,
    PAGE_SIZE,
    PROGRESS,
    RELEASE,
    opening,
    regions_of,
    session,
)
from tests.service.stage import BASE
from tests.support.descriptors import dead_directory
from tests.support.victim import victim_program

__all__ = ["scene", "victim_program"]

pytestmark = pytest.mark.uffd


def test_process_is_filled_by_the_next_daemon(scene: Scene) -> None:
    """A restore that is lazy goes on after its daemon was killed, with the client's connection,
    and leaves nothing in the store."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    restored.check(0, 20)
    manager.kill_and_restart()
    restored.check(20, 100)
    missing = client.do(PROGRESS).state.nr_missing
    assert 0 < missing <= 141 - 100
    client.do(pb.Request(set_pace=pb.SetPace(pace=pb.Pace())))
    assert client.do(RELEASE).state.ended
    restored.check()
    client.close()
    manager.wait_for_nothing_stored()
    assert "taken over" in manager.log


def test_fault_that_was_read_is_answered_by_the_next_daemon(scene: Scene) -> None:
    """A thread that waits when the daemon dies goes on when the next one is there."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    manager.kill()
    restored.victim.begin_reading(BASE + 60 * PAGE_SIZE, 3)
    manager.restart()
    seen = asyncio.run(restored.victim.end_reading())
    assert seen == restored.image.bytes(BASE + 60 * PAGE_SIZE, 3)
    client.do(FINISHED)
    restored.check()


REQUESTS = ("nothing", "open", "session", "finished")


@pytest.mark.parametrize("last", REQUESTS)
def test_hand_off_goes_on_where_it_was(scene: Scene, last: str) -> None:
    """A client whose daemon is killed between two requests does not notice."""
    manager, restored = scene.manager(), scene.restored()
    client = Numbered(manager.client())
    steps: list[tuple[str, Callable[[], object]]] = [
        ("nothing", lambda: None),
        ("open", lambda: client.do(opening())),
        (
            "session",
            lambda: client.do(session(regions_of(restored.image)), restored.fd, restored.file),
        ),
        ("finished", lambda: client.do(FINISHED)),
    ]
    for name, step in steps:
        step()
        if name == last:
            manager.kill_and_restart()
    client.do(RELEASE)
    restored.check()
    client.close()
    manager.wait_for_nothing_stored()


def test_request_that_is_under_way_is_answered_once(scene: Scene) -> None:
    """A request that has been sent, and not read, when the daemon dies is carried out by the
    next."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager)
    manager.kill()
    client.send(FINISHED)
    manager.restart()
    assert client.answer().accepted
    assert client.do(RELEASE).state.ended
    restored.check()


def test_list_that_is_incomplete_fails_its_restore(scene: Scene) -> None:
    """A list of regions is lost with the daemon, and so the client is told to begin anew; another
    restore goes on."""
    manager = scene.manager(times=NO_GRACE)
    good, one = scene.handed_over(manager)
    other = scene.restored()
    bad = Numbered(manager.client())
    bad.do(opening())
    bad.do(session(regions_of(other.image)[:1], more=True), other.fd, other.file)
    other.close()
    manager.kill_and_restart()
    assert bad.client.socket.recv(1) == b"" or bad.client.socket.recv(1) == b""
    manager.wait_for_log("restore 2: hand-off: the daemon died in the middle of a list of regions")
    good.do(FINISHED)
    good.do(RELEASE)
    one.check()


def test_children_are_taken_over(scene: Scene) -> None:
    """Processes that were forked are filled by the next daemon as well, each with its own
    pages."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    child = asyncio.run(restored.victim.fork())
    restored.check(0, 5)
    wait_until(
        lambda: "0.1" in manager.log or bool(client.do(PROGRESS).state.nr_sessions == 2),
        lambda: "the child's session",
    )
    manager.kill_and_restart()
    state = client.do(PROGRESS).state
    assert state.nr_sessions == 2
    assert asyncio.run(child.read(BASE, 200)) == restored.image.bytes(BASE, 200)
    restored.check()


def test_store_that_is_full_refuses(scene: Scene) -> None:
    """What could not be kept is refused before the process runs; what is there stays."""
    capacity = 6 + NR_RECORDERS
    manager = scene.manager(capacity=capacity + KEEPER_ROOM, times=NO_GRACE)
    client, restored = scene.handed_over(manager)
    assert len(manager.stored) == 5 + NR_RECORDERS
    further = Numbered(manager.client())
    further.send(opening())
    [reason] = further.answer().refused
    assert reason.startswith(f"the service manager keeps at most {capacity} descriptors for us")
    client.do(FINISHED)
    client.do(RELEASE)
    restored.check()


def test_directory_of_the_dead_daemon_stops_nobody(scene: Scene) -> None:
    """What a thread of it was listing when it died is nobody's, and is dropped."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager)
    manager.kill()
    with dead_directory() as fd:
        manager.stored["999"] = os.dup(fd)
    manager.restart()
    client.do(FINISHED)
    assert client.do(RELEASE).state.ended
    restored.check()
    client.close()
    manager.wait_for_nothing_stored()


def test_broken_state_stops_its_session_alone(scene: Scene) -> None:
    """A state that cannot be believed is told of; its process waits, and the others go on."""
    manager = scene.manager()
    good, one = scene.handed_over(manager, pace=LAZY)
    bad, other = scene.handed_over(manager, pace=LAZY)
    for client in (good, bad):
        client.do(FINISHED)
    manager.kill()
    broken = [
        fd
        for fd in manager.stored.values()
        if "lazypagesd-session:restore 2" in os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
    ]
    os.pwrite(broken[0], bytes(8), 0)
    manager.restart()
    manager.wait_for_log("lazypagesd-session:restore 2.*cannot be taken over.*goes on waiting")
    one.check()
    other.victim.begin_reading(BASE)
    good.do(PROGRESS)
    other.victim.kill()
