"""Hand-offs of any bytes in any pieces, with any descriptors beside them, that end anywhere."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import struct
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazypagesd.engine.restore import Restore
from lazypagesd.errors import HandoffError
from lazypagesd.handoff import criu
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.images.pagemap import PageMap
from lazypagesd.images.pstree import Task
from lazypagesd.kernel import fdpass
from lazypagesd.kernel.uffd import Feature
from lazypagesd.native import ffi
from tests.conftest import open_userfaultfd
from tests.handoff.test_criu import EVENTS, FINAL_WORD, negotiate, nr_fds, pid

pytestmark = pytest.mark.uffd

PROCESSES = {7: False, 5: True, 8: False}


@dataclass(frozen=True, slots=True)
class Piece:
    """One sendmsg(): bytes, and the names of descriptors that go with them."""

    data: bytes
    fds: tuple[str, ...] = ()


@functools.cache
def descriptors() -> dict[str, int]:
    """Return descriptors by name, of which only the first can be served; they stay open."""
    opened = {
        name: open_userfaultfd() for name in ("good", "blocking", "plain", "sigbus", "lacking")
    }
    negotiate(opened["good"])
    negotiate(opened["blocking"])
    os.set_blocking(opened["blocking"], True)
    negotiate(opened["sigbus"], EVENTS | Feature.SIGBUS)
    negotiate(opened["lacking"], EVENTS & ~Feature.EVENT_UNMAP)
    opened["file"] = os.open("/dev/null", os.O_RDONLY)
    opened["pipe"], opened["other end"] = os.pipe()
    return opened


NAMES = "good", "blocking", "plain", "sigbus", "lacking", "file", "pipe", "socket"
FDS = st.one_of(
    st.just(("good",)),
    st.just(()),
    st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
    st.just(("good",) * fdpass.MAX_FDS),
)
RIGHT = [
    Piece(pid(7)),
    Piece(b"\0", ("good",)),
    Piece(pid(-5)),
    Piece(pid(8)),
    Piece(b"\0", ("good",)),
    Piece(FINAL_WORD),
]
WORDS = st.one_of(st.binary(min_size=1, max_size=6), st.sampled_from([p.data for p in RIGHT]))


@st.composite
def scripts(draw: st.DrawFn) -> list[Piece]:
    """Draw what a client sends: a right hand-off, of which some pieces were changed."""
    script = list(RIGHT)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(script)))
        match draw(st.sampled_from(["put", "cut", "swap", "fds", "join", "end"])):
            case "put":
                script.insert(at, Piece(draw(WORDS), draw(FDS)))
            case "cut" if at < len(script):
                data = script[at].data
                half = draw(st.integers(0, len(data)))
                script[at : at + 1] = [Piece(data[:half], script[at].fds), Piece(data[half:])]
            case "swap" if at < len(script):
                script.append(script.pop(at))
            case "fds" if at < len(script):
                script[at] = Piece(script[at].data, draw(FDS))
            case "join" if at + 1 < len(script):
                both = script[at], script[at + 1]
                joined = Piece(both[0].data + both[1].data, both[0].fds + both[1].fds)
                script[at : at + 2] = [joined]
            case "end":
                del script[at:]
    return [piece for piece in script if piece.data and len(piece.fds) <= fdpass.MAX_FDS]


class Taken:
    """In the place of a restore and its checkpoint: closes what it is given, and remembers whose
    it was."""

    name = "restore 1"

    def __init__(self) -> None:
        self.tasks = [Task(number, 0, (), zombie) for number, zombie in PROCESSES.items()]
        self.names: list[str] = []
        self.released = False
        self.record = None

    def page_map(self, number: int) -> PageMap:
        """Return one of nothing."""
        return PageMap(ffi.NULL, 0, 0, ())

    def add(
        self,
        name: str,
        fd: int,
        page_map: PageMap,
        sources: object,
        *,
        pidfd: int | None,
        image_pid: int,
    ) -> None:
        """Take a process over: *fd* can be served, and both descriptors are ours."""
        criu.vet(fd, image_pid)
        os.close(fd)
        if pidfd is not None:
            os.close(pidfd)
        self.names.append(name)

    def release(self) -> None:
        """Note the end of the hand-off."""
        self.released = True


async def converse(script: list[Piece], taken: Taken, *, first: int) -> None:
    """Send *script* to the product's coroutine, the *first* pieces before it looks, and close."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        fdpass.ask_for_sender(ours)
        with theirs:
            send(theirs, script[:first])
            async with asyncio.TaskGroup() as group:
                task = group.create_task(receive(ours, taken))
                await asyncio.sleep(0)
                send(theirs, script[first:])
                theirs.close()
        criu.check_end(ours, task.result())


async def receive(ours: socket.socket, taken: Taken) -> criu.Protocol:
    checkpoint, restore = cast(Checkpoint, taken), cast(Restore, taken)
    try:
        return await criu.receive(ours, checkpoint, {}, restore)
    except HandoffError:
        ours.close()
        raise


def send(theirs: socket.socket, script: list[Piece]) -> None:
    for piece in script:
        fds = [descriptors().get(name, theirs.fileno()) for name in piece.fds]
        try:
            socket.send_fds(theirs, [piece.data], fds)
        except BrokenPipeError:
            return


def is_right(script: list[Piece]) -> bool:
    """Tell whether *script* is a hand-off, by matching it byte for byte."""
    stream = [
        (byte, piece.fds if i == 0 else ())
        for piece in script
        for i, byte in enumerate(piece.data)
    ]
    left = dict(PROCESSES)
    while left:
        number = struct.unpack("=i", bytes(byte for byte, _ in stream[:4]).ljust(4, b"\0"))[0]
        if left.pop(abs(number), None) is not (number < 0):
            return False
        if number > 0 and (len(stream) < 5 or stream[4][1] != ("good",)):
            return False
        del stream[: 5 if number > 0 else 4]
    return bytes(byte for byte, _ in stream) == FINAL_WORD


@settings(deadline=None, max_examples=300)
@given(scripts(), st.integers(0, 8))
def test_any_hand_off_is_taken_or_refused_and_leaves_no_descriptor(
    script: list[Piece], first: int
) -> None:
    """It is a HandoffError, or was right; whatever came beside the bytes is closed."""
    descriptors()
    before = nr_fds()
    taken = Taken()
    try:
        asyncio.run(converse(script, taken, first=first))
    except* HandoffError as group:
        assert all(str(error).startswith("hand-off: ") for error in group.exceptions)
        assert script != RIGHT
    else:
        assert is_right(script)
        assert sorted(taken.names) == ["restore 1/7", "restore 1/8"]
        assert taken.released
    assert nr_fds() == before
