"""Hand-offs from the first word to the last page, whose daemon dies on the way: what each way to
keep a daemon's descriptors has in common for a test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from lazypagesd.proto import handoff_pb2 as pb
from tests.service.conftest import NR_PAGES as CRIU_PAGES
from tests.service.conftest import Stage as CriuStage
from tests.service.daemon import DEADLINE_S, kill_group, wait_until
from tests.service.manager import Numbered
from tests.service.serving import (
    FINISHED,
    PAGE_SIZE,
    PROGRESS,
    RELEASE,
    Client,
    opening,
    regions_of,
    session,
)
from tests.service.stage import BASE, NR_PAGES, Restored
from tests.support.image import wrong_pages

LAZY = pb.Pace(kind=pb.Pace.LAZY)


class KeptServer:
    """``lazypagesd serve`` with a keeper, and without a service manager."""

    def __init__(self, directory: Path, command: Sequence[str]) -> None:
        self.path = directory / "handoff.socket"
        self._log = directory / "log"
        self._clients: list[Client] = []
        environment = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "serve", "-v", "--runtime-dir", os.fspath(directory)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment,
                process_group=0,
            )

    @property
    def log(self) -> str:
        """What was logged so far, by all daemons."""
        return self._log.read_text()

    def client(self) -> Client:
        """Connect, once it listens."""
        wait_until(self._connect, lambda: f"{self.path}: {self.log}")
        return self._clients[-1]

    def _connect(self) -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            self._clients.append(Client(self.path))
            return True
        return False

    def close(self) -> None:
        """Kill it, and whoever has come after it."""
        kill_group(self.process.pid)
        self.process.wait(DEADLINE_S)
        for client in self._clients:
            client.close()
        print(self.log)


def hand_over(client: Client, restored: Restored) -> None:
    """Restore a process that forks, from the first request to the last; each byte that it, or its
    child, sees is right."""
    numbered = Numbered(client)
    numbered.do(opening(pace=LAZY))
    numbered.do(session(regions_of(restored.image)), restored.fd, restored.file)
    restored.close()
    victim, image = restored.victim, restored.image
    waiting = BASE + 60 * PAGE_SIZE
    victim.begin_reading(waiting, 3)
    child = asyncio.run(victim.fork())
    numbered.do(FINISHED)
    assert asyncio.run(victim.end_reading()) == image.bytes(waiting, 3)
    assert asyncio.run(child.read(BASE, 5)) == image.bytes(BASE, 5)
    assert numbered.do(PROGRESS).state.nr_sessions == 2
    numbered.do(pb.Request(set_pace=pb.SetPace(pace=pb.Pace())))
    assert numbered.do(RELEASE).state.ended
    for process in (victim, child):
        seen = asyncio.run(process.read(BASE, NR_PAGES))
        assert wrong_pages(seen, image.bytes(BASE, NR_PAGES)) == []
    numbered.close()


def hand_over_to_criu(client: Client, stage: CriuStage) -> None:
    """Restore two processes by CRIU, at a socket that is handed over, in the same way."""
    stage.checkpoint({7: CRIU_PAGES, 8: CRIU_PAGES}, {5})
    numbered = Numbered(client)
    await_criu(numbered, stage.images, stage.work / "lazy-pages.socket")
    restore_by_criu(stage)
    assert numbered.do(RELEASE).state.ended
    numbered.close()


def await_criu(client: Numbered, images: Path, address: Path) -> None:
    """Let the daemon wait for CRIU to connect to *address*."""
    with socket.socket(socket.AF_UNIX) as listener, open_directory(images) as images_fd:
        listener.bind(os.fspath(address))
        listener.listen()
        client.do(opening(images=True), images_fd)
        client.do(pb.Request(serve_criu=pb.ServeCriu()), listener.fileno())


def restore_by_criu(stage: CriuStage) -> None:
    """Do as criu restore does, and see that every page is right."""
    restorer = stage.restorer("connect")
    restorer.take_over(7, CRIU_PAGES)
    assert restorer.read(7, 3) == "right"
    restorer.do("pid -5")
    restorer.take_over(8, CRIU_PAGES)
    restorer.do("word", "close")
    for pid in (7, 8):
        restorer.check(pid, CRIU_PAGES)


@contextlib.contextmanager
def open_directory(path: Path) -> Iterator[int]:
    """Open a directory while the block lasts."""
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)
