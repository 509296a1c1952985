"""A client of the admin socket, written from the description of Varlink alone, which sees to it
that each answer is as its interface says; and a process about which it can ask."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazypagesd.client import Pace, Region, Restore
from lazypagesd.service.manager.interface import FILE
from lazypagesd.service.metrics.systemd import TEXT as METRICS_TEXT
from lazypagesd.service.varlink.interface import Interface
from lazypagesd.service.varlink.service import SERVICE_TEXT
from tests.service.daemon import DEADLINE_S, wait_until
from tests.service.serving import PAGE_SIZE, Server
from tests.service.stage import BASE, Restored, Stage

MANAGER = "org.lazypages.Manager"
INTERFACES = {
    each.name: each
    for each in (Interface.read(FILE), Interface(METRICS_TEXT), Interface(SERVICE_TEXT))
}


class Failed(Exception):
    """An error reply."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        super().__init__(f"{name} {parameters}")
        self.name = name
        self.parameters = parameters


class Asker:
    """A connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(os.fspath(path))
        self._received = b""

    def send(self, method: str, parameters: dict[str, object], **flags: bool) -> None:
        """Send a call."""
        call = {"method": method, "parameters": parameters, **flags}
        self.socket.sendall(json.dumps(call).encode() + b"\0")

    def reply(self) -> dict[str, Any]:
        """Return the next reply, as it is."""
        while b"\0" not in self._received:
            data = self.socket.recv(1 << 16)
            assert data, "hung up"
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        found = json.loads(message)
        assert isinstance(found, dict)
        return found

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return the reply to a call; raises Failed."""
        [reply] = self._replies(method, parameters, more=False)
        return reply

    def stream(self, method: str, **parameters: object) -> Iterator[dict[str, Any]]:
        """Yield the replies to a call with more."""
        return self._replies(method, parameters, more=True)

    def _replies(
        self, method: str, parameters: dict[str, object], *, more: bool
    ) -> Iterator[dict[str, Any]]:
        name = method if "." in method else f"{MANAGER}.{method}"
        interface, _, short = name.rpartition(".")
        self.send(name, parameters, **({"more": True} if more else {}))
        continues = True
        while continues:
            reply = self.reply()
            found = reply.get("parameters", {})
            if "error" in reply:
                owner, _, error = reply["error"].rpartition(".")
                INTERFACES[owner].check_error(error, found)
                raise Failed(error, found)
            INTERFACES[interface].check_reply(short, found)
            continues = reply.get("continues", False)
            yield found

    def fails(self, method: str, **parameters: object) -> tuple[str, dict[str, Any]]:
        """Return the error that a call is answered with."""
        try:
            self.call(method, **parameters)
        except Failed as error:
            return error.name, error.parameters
        raise AssertionError(f"{method} was answered")

    def close(self) -> None:
        """Leave."""
        self.socket.close()


@dataclass(slots=True)
class Lazy:
    """A daemon, and a process that it fills only where it is touched: restore 1, session 1/0."""

    server: Server
    restored: Restored
    restore: Restore
    asker: Asker

    @property
    def pid(self) -> int:
        """The process's."""
        return int(self.restored.victim.pid)

    def read(self, page: int, nr_pages: int = 1) -> None:
        """Let the process look at pages, which have to be right."""
        addr = BASE + page * PAGE_SIZE
        seen = asyncio.run(self.restored.victim.read(addr, nr_pages))
        assert seen == self.restored.image.bytes(addr, nr_pages)

    def on_record(self, what: str, number: int) -> list[dict[str, Any]]:
        """Return the process's "faults" or "steps" once there are *number*: it goes on before
        what it did is on record."""
        method = f"Get{what.title()}"

        def entries() -> list[dict[str, Any]]:
            return list(self.asker.call(method, session="1/0")[what])

        wait_until(lambda: len(entries()) >= number, lambda: f"{number} {what}: {entries()}")
        return entries()

    def close(self) -> None:
        """Leave the daemon."""
        self.asker.close()
        self.restore.close()


def hand_over_lazily(server: Server, restored: Restored, *, finish: bool = True) -> Restore:
    """Return a restore that has handed a process over with its pidfd, to be filled lazily."""
    restore = Restore.open("web", server.path, pace=Pace.LAZY)
    pidfd = os.pidfd_open(restored.victim.pid)
    restore.add_session(
        restored.fd,
        regions=[Region(p.start, p.nr_pages, p.key * PAGE_SIZE) for p in restored.image.parts],
        files=[restored.file],
        pidfd=pidfd,
    )
    os.close(pidfd)
    restored.close()
    if finish:
        restore.finished()
    return restore


def admin_path(server: Server) -> Path:
    """Return where the daemon is asked."""
    return server.directory / "admin.socket"


def lazily_served(stage: Stage, **options: Any) -> Lazy:
    """Return one whose restore has finished; *options* are the server's."""
    server, restored = stage.server(**options), stage.restored()
    restore = hand_over_lazily(server, restored)
    return Lazy(server, restored, restore, Asker(admin_path(server)))
