"""Clients that connect: how many, and that none of them is overlooked or overheard."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import Generic

from lazypagesd.kernel import fdpass
from lazypagesd.service.acceptor import Acceptor
from lazypagesd.service.varlink.connection import Connection
from lazypagesd.service.varlink.service import Caller, Service

log = logging.getLogger(__name__)

# At a time: each takes a descriptor.
CONNECTIONS_MAX = 512
CONNECTIONS_PER_USER = 128


class Server(Generic[Caller]):
    """Accepts clients, and answers them, until close()."""

    def __init__(
        self,
        listener: socket.socket,
        service: Service[Caller],
        identify: Callable[[socket.socket], Caller],
        group: asyncio.TaskGroup,
        *,
        shared: bool,
    ) -> None:
        """Answer by *service* in tasks of *group*; *identify* says who a client is.

        Takes ownership of *listener*, which is non-blocking; if it is *shared*, others accept at
        it after us.
        """
        self._service = service
        self._identify = identify
        self._group = group
        self._nr_of_user: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptor = Acceptor(listener, self._accepted, shared=shared, what="client")
        self._closed = False

    def start(self) -> None:
        """Accept from now on, in the running loop."""
        self._acceptor.start()

    def close(self) -> None:
        """Hang up on everybody, and accept nobody any more."""
        self._closed = True
        self._acceptor.close()
        for task in self._tasks:
            task.cancel()

    def _accepted(self, sock: socket.socket) -> None:
        uid = fdpass.peer_uid(sock)
        if (
            self._closed
            or self._nr_of_user.total() >= CONNECTIONS_MAX
            or self._nr_of_user[uid] >= CONNECTIONS_PER_USER
        ):
            # Whoever is told so would have to be given time to hear it.
            sock.close()
            return
        sock.setblocking(False)
        self._nr_of_user[uid] += 1
        task = self._group.create_task(self._serve(sock, uid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, uid: int) -> None:
        try:
            connection = await Connection.open(sock, self._service, self._identify(sock))
            await connection.serve()
        except Exception:
            # Here, where it ends this connection alone.
            log.exception("admin: unexpected error, please report it")
        finally:
            self._nr_of_user[uid] -= 1
