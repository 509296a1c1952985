"""The coroutine that feeds the hand-off's state machine."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from typing import cast

import pytest

from lazypagesd.engine.engine import Engine
from lazypagesd.engine.restore import Observer, Restore
from lazypagesd.engine.state import State
from lazypagesd.handoff.criu import wait_for_message
from lazypagesd.images.pagemap import PageMap
from lazypagesd.kernel import fdpass
from lazypagesd.native import ffi


def test_cancelled_when_bytes_come() -> None:
    """A wait that is cancelled in the very turn in which bytes come ends without complaint."""
    complaints: list[dict[str, object]] = []

    async def wait_and_cancel() -> bool:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(wait_for_message(ours, 1))
                await asyncio.sleep(0)
                theirs.send(b"x")
                loop.call_soon(task.cancel)
            return task.cancelled()

    assert asyncio.run(wait_and_cancel())
    assert complaints == []


def test_broken_connection_is_its_end() -> None:
    """A connection that is reset has no bytes, as one that is closed."""

    async def receive() -> bytes:
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            ours.send(b"unread")
            theirs.close()
            return (await wait_for_message(ours, 4)).data

    assert asyncio.run(receive()) == b""


def test_no_more_is_received_than_belongs_together() -> None:
    """What is behind the wanted bytes stays in the socket, and they do until they are consumed."""

    async def receive() -> list[bytes]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            asyncio.get_running_loop().call_soon(theirs.send, b"sevenx")
            first = await wait_for_message(ours, 5)
            again = await wait_for_message(ours, 5)
            fdpass.consume(ours, again)
            return [message.data for message in (first, again, await wait_for_message(ours, 1))]

    assert asyncio.run(receive()) == [b"seven", b"seven", b"x"]


def test_no_room_for_a_pidfd_is_as_none() -> None:
    """Without a free descriptor the kernel gives an errno for a pidfd, which is none to close."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if not fdpass.ask_for_sender(ours):
            pytest.skip("the kernel gives no pidfd with a message (Linux 6.5 does)")
        theirs.send(b"x")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            message = fdpass.receive(ours, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        pidfd = message.take_pidfd()
        message.close()
    assert pidfd is None


def test_descriptors_are_closed_when_there_is_no_state_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Restore.add() owns the descriptors it is given, also when it fails."""

    def fail(*args: object, **options: object) -> State:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(State, "create", fail)
    page_map = PageMap(ffi.NULL, 0, 0, ())
    restore = Restore("restore", Engine(1), cast(Observer, None))
    (fd, other), (pidfd, another) = os.pipe(), os.pipe()
    with os.fdopen(other), os.fdopen(another), pytest.raises(OSError, match="Too many"):
        restore.add("7", fd, page_map, [], pidfd=pidfd)
    for closed in (fd, pidfd):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(closed)
