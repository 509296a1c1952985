"""The coroutine that feeds the hand-off's state machine."""

from __future__ import annotations

import asyncio
import socket

from lazypagesd.handoff.criu import receive_message


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
                task = group.create_task(receive_message(ours, 1))
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
            return (await receive_message(ours, 4)).data

    assert asyncio.run(receive()) == b""


def test_no_more_is_received_than_belongs_together() -> None:
    """What is behind the wanted bytes stays in the socket."""

    async def receive() -> list[bytes]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            asyncio.get_running_loop().call_soon(theirs.send, b"sevenx")
            return [(await receive_message(ours, size)).data for size in (5, 1)]

    assert asyncio.run(receive()) == [b"seven", b"x"]
