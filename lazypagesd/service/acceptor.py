"""Accepting restores, none of which may be overlooked.

Some facts about the backlog of a unix socket: connect() returns once the connection is in it, and
whoever connected may send all it has, close, and go on, long before anybody accepts.  A listener
that is closed takes its backlog with it, of which such a client hears nothing.  One that is shut
down for reading refuses who comes, and still hands out who is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

# How long a restore that cannot be accepted waits before that is tried again.
RETRY_S = 1.0


class Acceptor:
    """Hands every connection to *accepted*, from start() to close()."""

    def __init__(
        self,
        listener: socket.socket,
        accepted: Callable[[socket.socket], None],
        *,
        shared: bool = False,
        what: str = "restore",
    ) -> None:
        """Prepare to accept on *listener*, which is non-blocking.  Takes ownership of it.

        If it is *shared*, others accept at it after us; *what* is one who comes, for people.
        """
        self._listener = listener
        self._shared = shared
        self._what = what
        self._accepted = accepted
        self._retry: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept from now on, in the running loop."""
        self._retry = None
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Refuse who comes, accept who is in the backlog; closing twice does nothing.

        Where the listener is shared, both are left to the next who accepts.
        """
        if self._listener.fileno() < 0:
            return
        self._pause()
        if self._shared:
            self._listener.close()
            return
        self._listener.shutdown(socket.SHUT_RD)
        with self._listener, contextlib.suppress(OSError):
            while True:
                self._accepted(self._listener.accept()[0])

    def _accept(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # No descriptor is left, say.  Those that are being served must not end for it.
            log.error(
                "a further %s waits, for it cannot be accepted: %s;"
                " it is tried again every %g seconds",
                self._what,
                error.strerror,
                RETRY_S,
            )
            self._pause()
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self.start)
        else:
            self._accepted(connection)

    def _pause(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()
