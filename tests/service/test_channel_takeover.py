"""A channel whose daemon dies is served by the next one: the process goes on, in every byte."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from lazypagesd.kernel.channel import Api
from lazypagesd.proto import handoff_pb2 as pb
from tests.service.channelled import Channelled, ChannelStage, at
from tests.service.daemon import DEADLINE_S, wait_until
from tests.service.manager import Manager, Numbered
from tests.service.scene import LAZY
from tests.service.serving import FINISHED, PAGE_SIZE, PROGRESS, RELEASE, opening
from tests.service.test_channel import NEVER
from tests.support.victim import confine, victim_program

__all__ = ["confine", "victim_program"]

pytestmark = pytest.mark.uffd


class Scene:
    """A manager, a process with a channel that it serves, and a look at what the process says."""

    def __init__(self, directory: Path, stage: ChannelStage, stack: ExitStack) -> None:
        self.manager = stack.enter_context(closing(Manager(directory)))
        self.manager.wait_ready()
        self.client = Numbered(self.manager.client())
        self.process = stage.channelled()
        # The daemon's end, as the manager has it as well.
        self._tap = stack.enter_context(socket.socket(fileno=os.dup(self.process.fd)))
        self.client.do(opening(pace=LAZY))

    def hand_over(self, api: Api = Api.V2) -> None:
        """Hand the process over, after which it runs."""
        process, never = self.process, NEVER if api is Api.V1 else {}
        process.begin_to_open(api)
        self.client.do(process.request(**never), process.fd, process.file)
        process.opened()
        self.client.do(FINISHED)

    def wait_asked(self) -> None:
        """Return when the daemon has said something, which the process has not read."""
        wait_until(lambda: self._nr_unread() > 0, lambda: f"a question: {self.manager.log}")

    def _nr_unread(self) -> int:
        answer = fcntl.ioctl(self._tap, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    @contextmanager
    def mute(self) -> Iterator[None]:
        """Let the daemon do nothing until it is followed by the next one, at the end."""
        os.kill(self.manager.process.pid, signal.SIGSTOP)
        os.waitpid(self.manager.process.pid, os.WUNTRACED)
        yield
        self.manager.kill_and_restart()

    def wait_told(self) -> None:
        """Return when the process has said something, which the daemon has not read."""
        poller = select.poll()
        poller.register(self._tap, select.POLLIN)
        assert poller.poll(DEADLINE_S * 1000)

    def lose(self) -> None:
        """Receive a packet as a daemon does that dies before it has looked at it."""
        self.wait_told()
        assert self._tap.recv(4096)

    def conclude(self) -> None:
        """Let all of it be filled, and see that nothing stays."""
        self.client.do(pb.Request(set_pace=pb.SetPace(pace=pb.Pace())))
        state = self.client.do(RELEASE).state
        assert (state.ended, state.nr_live, state.nr_missing) == (True, 0, 0)
        self.client.close()
        self.manager.wait_for_nothing_stored()


@pytest.fixture
def unopened(tmp_path: Path, victim_program: Path, confine: Path) -> Iterator[Scene]:
    """A process that may have no userfaultfd, and has not been handed over."""
    with ExitStack() as stack:
        stage = ChannelStage(tmp_path, victim_program, stack, [confine])
        yield Scene(tmp_path, stage, stack)


@pytest.fixture
def scene(unopened: Scene) -> Scene:
    """A process with v2, which runs."""
    unopened.hand_over()
    return unopened


LOST = pytest.mark.parametrize("is_lost", [False, True], ids=["unread", "lost"])


def tell(scene: Scene, *, is_lost: bool) -> None:
    """Leave what the process says in the socket, or lose it."""
    if is_lost:
        scene.lose()
    else:
        scene.wait_told()


@LOST
@pytest.mark.parametrize("api", list(Api))
def test_fault_is_answered_by_the_next_daemon(unopened: Scene, api: Api, is_lost: bool) -> None:
    """A thread that waits goes on, whether anybody has read what it asked for or not."""
    scene = unopened
    scene.hand_over(api)
    scene.process.check(0, 5)
    with scene.mute():
        scene.process.victim.begin_reading(at(60), 3)
        tell(scene, is_lost=is_lost)
    seen = asyncio.run(scene.process.victim.end_reading())
    assert seen == scene.process.image.bytes(at(60), 3)
    scene.process.check(0, 150)
    scene.conclude()
    scene.process.check()


def discard(process: Channelled) -> None:
    process.victim.begin_aside("chdiscard", at(70), 20 * PAGE_SIZE)


def unmap(process: Channelled) -> None:
    process.victim.begin_aside("chmunmap", at(70), 20 * PAGE_SIZE)


def move(process: Channelled) -> None:
    process.victim.begin_aside("chmremap", at(70), 20 * PAGE_SIZE, at(1000))


def check_rest(process: Channelled) -> None:
    """See that what was not changed is as it was."""
    process.check(0, 70)
    process.check(90, 110)


def check_discarded(process: Channelled) -> None:
    process.check_zero(70, 20)
    check_rest(process)


def check_unmapped(process: Channelled) -> None:
    process.victim.call("mmap", at(70), 20 * PAGE_SIZE)
    process.check_zero(70, 20)
    check_rest(process)


def check_moved(process: Channelled) -> None:
    process.check(1000, 20, origin=70)
    check_rest(process)


CHANGES = {
    "discard": (discard, check_discarded),
    "munmap": (unmap, check_unmapped),
    "mremap": (move, check_moved),
}


@LOST
@pytest.mark.parametrize("what", CHANGES)
def test_event_takes_effect_with_the_next_daemon(scene: Scene, what: str, is_lost: bool) -> None:
    """A call that changes mappings, with pages there and pages missing, comes to its end, and
    what is filled then is right for what is there."""
    begin, check = CHANGES[what]
    scene.process.check(60, 16)
    with scene.mute():
        begin(scene.process)
        tell(scene, is_lost=is_lost)
    assert scene.process.victim.call("rejoin") == 0
    check(scene.process)
    scene.conclude()
    check_rest(scene.process)


def test_events_are_told_to_one_daemon_after_the_other(scene: Scene) -> None:
    """Several changes, each at another daemon's death, take effect in their order."""
    begins: list[Callable[[Channelled], None]] = [discard, move]
    for begin, is_lost in zip(begins, (True, False), strict=True):
        with scene.mute():
            begin(scene.process)
            tell(scene, is_lost=is_lost)
        assert scene.process.victim.call("rejoin") == 0
    scene.process.check_zero(1000, 20)
    check_rest(scene.process)
    scene.conclude()


@LOST
def test_child_is_served_by_the_next_daemon(scene: Scene, is_lost: bool) -> None:
    """A process that forks while nobody serves it goes on, and so does its child, each with its
    own pages; of a descriptor that was lost nothing stays."""
    scene.process.check(0, 5)
    with scene.mute():
        forking = Forking(scene.process)
        tell(scene, is_lost=is_lost)
    child = forking.result()
    asyncio.run(child.victim.write(at(100), 0x11))
    asyncio.run(scene.process.victim.write(at(100), 0x22))
    wait_until(lambda: scene.client.do(PROGRESS).state.nr_sessions == 2, lambda: "two sessions")
    for member, byte in (scene.process, 0x22), (child, 0x11):
        member.check(0, 100)
        assert member.read(100) == bytes([byte]) * PAGE_SIZE
    scene.manager.kill_and_restart()
    for member in scene.process, child:
        member.check(101, 99)
    scene.conclude()
    assert "has forked, and the daemon died" not in scene.manager.log


class Forking:
    """A fork that is under way."""

    def __init__(self, process: Channelled) -> None:
        self._process = process
        process.victim.begin_aside("fork")

    def result(self) -> Channelled:
        """Return the child."""
        process = self._process
        child = process.victim.family.accept()
        assert process.victim.call("rejoin") == child.pid
        return Channelled(child, -1, process.image, process.file)


# ---- the exchange ----


def test_question_is_asked_again(unopened: Scene) -> None:
    """A daemon that died before the process had answered is followed by one that asks as well,
    and the process, which is asked twice, is served."""
    scene, process = unopened, unopened.process
    scene.client.send(process.request(), process.fd, process.file)
    scene.wait_asked()
    scene.manager.kill_and_restart()
    process.begin_to_open()
    finish_opening(scene)


@LOST
@pytest.mark.parametrize("faults", [False, True], ids=["", "and runs"])
def test_answer_is_given_again(unopened: Scene, is_lost: bool, faults: bool) -> None:
    """A process that has answered, and waits for a page already, is asked again, and served."""
    scene, process = unopened, unopened.process
    scene.client.send(process.request(), process.fd, process.file)
    scene.wait_asked()
    with scene.mute():
        process.begin_to_open()
        tell(scene, is_lost=is_lost)
        if faults:
            process.opened()
            process.victim.begin_reading(at(60), 3)
            scene.wait_told()
    finish_opening(scene, is_open=faults)
    if faults:
        seen = asyncio.run(process.victim.end_reading())
        assert seen == process.image.bytes(at(60), 3)


def finish_opening(scene: Scene, *, is_open: bool = False) -> None:
    """See that a process that is being handed over is served."""
    assert scene.client.answer().accepted
    if not is_open:
        scene.process.opened()
    scene.client.do(FINISHED)
    discard(scene.process)
    assert scene.process.victim.call("rejoin") == 0
    scene.manager.kill_and_restart()
    check_discarded(scene.process)
    scene.conclude()
