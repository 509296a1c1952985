"""`lazypagesd.client.Restore` for asyncio: the same methods, which let other tasks run meanwhile.

    async with await Restore.open("web", socket_path) as restore:
        await restore.add_session(userfaultfd, regions=[Region(...)], files=[file])
        ...  # let the process run
        await restore.finished()

Some facts about asyncio and the socket:

- A packet is sent and received as a whole.  A request is sent when the one before it has been
  answered, and so read, which leaves room for it: sending never waits.
- A non-blocking connect() of AF_UNIX fails where the listener's queue is full, and nothing tells
  when to try again (`man 2 connect`, EAGAIN).  So it blocks, in a thread.
- A descriptor that is closed while a loop waits for it never wakes who waits; one that is shut
  down does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lazypagesd.client import messages
from lazypagesd.client.messages import (
    SOCKET_PATH,
    Conversation,
    Pace,
    Packet,
    Progress,
    Refused,
    Region,
)
from lazypagesd.client.restore import connected
from lazypagesd.proto import handoff_pb2 as pb

__all__ = ["SOCKET_PATH", "Pace", "Progress", "Refused", "Region", "Restore"]


class Restore:
    """A connection to the daemon, and the restore that it stands for.

    All is as in `lazypagesd.client.Restore`.  Requests of several tasks take turns.

    A request that is under way and does not come to its end, because it is refused, or its task is
    cancelled, closes the connection: nobody could tell its answer from the next one's.  Before
    `finished` that fails the restore: kill its processes.
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        """Use `open` or `attach` instead."""
        self._socket = sock
        self._conversation = Conversation(name)
        self._turn = asyncio.Lock()
        self._closed = False
        self.name = name
        self.id = 0

    @classmethod
    async def open(
        cls,
        name: str = "",
        path: Path = SOCKET_PATH,
        *,
        images_fd: int | None = None,
        pace: Pace = Pace.EAGER,
    ) -> Self:
        """Begin a restore that people are told of as *name*."""
        return await cls._connect(path, name, messages.opening(name, images_fd, pace))

    @classmethod
    async def attach(cls, number: int, path: Path = SOCKET_PATH) -> Self:
        """Reach the restore whose `id` is *number*, for progress(), set_pace() and release()."""
        return await cls._connect(path, f"restore {number}", messages.attaching(number))

    @classmethod
    async def _connect(cls, path: Path, name: str, first: Packet) -> Self:
        restore = cls(await _connected(path), name)
        answer = await restore._ask([first])
        restore.name, restore.id = answer.restore, answer.id
        restore._conversation.name = restore.name
        return restore

    async def add_session(
        self,
        userfaultfd: int,
        *,
        regions: Iterable[Region] = (),
        files: Sequence[int] = (),
        image_pid: int | None = None,
        pidfd: int | None = None,
        never_forks: bool = False,
        never_changes_mappings: bool = False,
        channel: bool = False,
    ) -> None:
        """Hand one address space over; its faults are answered when this returns."""
        await self._ask(
            messages.session(
                userfaultfd,
                regions,
                files,
                image_pid=image_pid,
                pidfd=pidfd,
                never_forks=never_forks,
                never_changes_mappings=never_changes_mappings,
                channel=channel,
            )
        )

    async def finished(self) -> None:
        """Say that all processes are in place: what is missing is filled from now on."""
        await self._ask([messages.FINISHED])

    async def set_pace(self, pace: Pace) -> None:
        """Fill what nobody waits for at another pace from now on."""
        await self._ask([messages.pacing(pace)])

    async def progress(self) -> Progress:
        """Return how far it is."""
        return messages.progress_of(await self._ask([messages.PROGRESS]))

    async def release(self) -> Progress:
        """Wait until the processes need the daemon no more."""
        return messages.progress_of(await self._ask([messages.RELEASE]))

    async def abort(self) -> None:
        """Give the restore up, before `finished`: kill its processes now."""
        await self._ask([messages.ABORT])

    async def serve_criu(self, listener_fd: int) -> None:
        """Let ``criu restore --lazy-pages`` connect to a socket that listens; it may begin when
        this returns."""
        await self._ask([messages.listener(listener_fd)])

    def close(self) -> None:
        """Leave.  A restore that has not finished fails, and so does a request that waits."""
        self._closed = True
        if self._turn.locked():
            with contextlib.suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)
        else:
            self._socket.close()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave."""
        self.close()

    # The answer to the last of *packets*, between which no other task's go.
    async def _ask(self, packets: Iterable[Packet]) -> pb.Answer:
        answer = pb.Answer()
        async with self._turn:
            try:
                for packet in packets:
                    answer = await self._exchange(packet)
            except BaseException:
                self._closed = True
                raise
            finally:
                if self._closed:
                    self._socket.close()
        return answer

    async def _exchange(self, packet: Packet) -> pb.Answer:
        if not self._closed:
            socket.send_fds(self._socket, [self._conversation.encode(packet)], packet.fds)
        answer = None
        while answer is None:
            data = await self._receive()
            if self._closed and not data:
                raise ConnectionError(f"{self.name}: the connection is closed")
            answer = self._conversation.take(data)
        return answer

    async def _receive(self) -> bytes:
        data = b""
        if not self._closed:
            # Reset: it has left without reading the request.
            with contextlib.suppress(ConnectionResetError):
                loop = asyncio.get_running_loop()
                data = await loop.sock_recv(self._socket, messages.PACKET_MAX)
        return data


async def _connected(path: Path) -> socket.socket:
    loop = asyncio.get_running_loop()
    connecting = loop.run_in_executor(None, connected, path)
    try:
        sock = await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_close_result)
        raise
    sock.setblocking(False)
    return sock


def _close_result(connecting: asyncio.Future[socket.socket]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
