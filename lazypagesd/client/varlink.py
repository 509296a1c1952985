"""Asking the daemon, by its admin socket: calls of Varlink interfaces, and their replies.

The interface is org.lazypages.Manager; ``man 7 org.lazypages.Manager`` has its methods.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOCKET_PATH = Path("/run/lazypagesd/admin.socket")
MANAGER = "org.lazypages.Manager"

# How long the daemon may take to answer, or to go on answering.
TIMEOUT_S = 30.0
CHUNK = 1 << 16


class CallFailed(Exception):
    """An error reply: its *name*, without that of the interface, and its *parameters*."""

    def __init__(self, interface: str, name: str, parameters: dict[str, Any]) -> None:
        super().__init__(f"{name} {parameters}" if parameters else name)
        self.interface = interface
        self.name = name
        self.parameters = parameters


class Connection:
    """A connection to a daemon, for one call at a time.  Owns its socket until close()."""

    def __init__(self, path: Path = SOCKET_PATH, *, timeout_s: float | None = TIMEOUT_S) -> None:
        """Connect to the socket at *path*; raises OSError.

        *timeout_s* is how long an answer may take before TimeoutError is raised, None any time.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._received = bytearray()
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return the reply of a *method* of the manager, or of one that is named in full.

        Raises CallFailed, or OSError if there is no reply.
        """
        self._send(method, parameters, more=False)
        reply, _continues = self._reply()
        return reply

    def stream(self, method: str, **parameters: object) -> Iterator[dict[str, Any]]:
        """Yield each reply of a method that answers with many; the last one as well."""
        self._send(method, parameters, more=True)
        continues = True
        while continues:
            reply, continues = self._reply()
            yield reply

    def wait_for_ever(self) -> None:
        """Let answers take any time from now on."""
        self._socket.settimeout(None)

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is something of a reply."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def _send(self, method: str, parameters: dict[str, object], *, more: bool) -> None:
        name = method if "." in method else f"{MANAGER}.{method}"
        # What is None is as good as left out.
        given = {key: value for key, value in parameters.items() if value is not None}
        call: dict[str, object] = {"method": name, "parameters": given}
        self._socket.sendall(json.dumps(call | ({"more": True} if more else {})).encode() + b"\0")

    def _reply(self) -> tuple[dict[str, Any], bool]:
        searched = 0
        while (end := self._received.find(b"\0", searched)) < 0:
            searched = len(self._received)
            if not (data := self._socket.recv(CHUNK)):
                raise ConnectionError("the daemon hung up: its log says why")
            self._received += data
        reply = json.loads(self._received[:end])
        del self._received[: end + 1]
        parameters = reply.get("parameters") or {}
        if "error" in reply:
            interface, _, name = reply["error"].rpartition(".")
            raise CallFailed(interface, name, parameters)
        return parameters, bool(reply.get("continues"))
