"""Pieces of the service that a whole process is too coarse for, in this one."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lazypagesd.engine.custody import NoCustody
from lazypagesd.engine.pace import EAGER
from lazypagesd.engine.restore import Restore
from lazypagesd.handoff import criu
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.service import acceptor as acceptors
from lazypagesd.service.acceptor import Acceptor
from lazypagesd.service.criu_restores import restores_of
from lazypagesd.service.dropin import listening
from lazypagesd.service.restores import Restores
from lazypagesd.sources.file import FileSource
from tests.service.conftest import NR_PAGES, Stage

SOCKET = "lazy-pages.socket"


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    # asyncio leaves the default in place of what it found.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen in a directory of the test's own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    with listening() as listener:
        yield listener


def connect() -> socket.socket:
    """Connect to the current directory's socket."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(SOCKET)
    return client


def serve(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[], None]
) -> tuple[int, Restores]:
    """Serve the stage's checkpoint while *scenario* runs in a thread; return the exit code."""
    monkeypatch.chdir(stage.work)

    async def both(restores: Restores, listener: socket.socket) -> int:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            serving = group.create_task(restores.serve(listener))
            await asyncio.to_thread(scenario)
            return await serving

    images_fd = os.open(stage.images, os.O_RDONLY)
    try:
        with Checkpoint.open(images_fd) as checkpoint, listening() as listener:
            restores = restores_of(checkpoint, EAGER, NoCustody())
            return asyncio.run(both(restores, listener)), restores
    finally:
        os.close(images_fd)


@pytest.mark.uffd
def test_unexpected_error_fails_its_restore_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug that shows in one restore is logged, and no other restore ends for it."""
    receive = criu.receive

    async def receive_or_fail(
        connection: socket.socket,
        checkpoint: Checkpoint,
        sources: Mapping[int, FileSource],
        restore: Restore,
    ) -> criu.Protocol:
        protocol = await receive(connection, checkpoint, sources, restore)
        if restore.name == "restore 2":
            raise KeyError("a bug")
        return protocol

    def scenario() -> None:
        good = stage.half_done()
        bad = stage.released()
        bad.check(7, NR_PAGES)
        good.do("word", "close")
        good.check(7, NR_PAGES)

    monkeypatch.setattr(criu, "receive", receive_or_fail)
    code, _restores = serve(stage, monkeypatch, scenario)
    assert code == 1
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == "restore 2: unexpected error, please report it"
    assert error.exc_info


@pytest.mark.uffd
def test_report_has_a_table_for_each_restore(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Restores are told apart in what is printed, and one without processes has no table."""

    def scenario() -> None:
        first, nobody = stage.half_done(), stage.restorer("connect")
        second = stage.half_done()
        nobody.do("close")
        for restorer in (first, second):
            restorer.do("word", "close")
            restorer.check(7, NR_PAGES)

    code, restores = serve(stage, monkeypatch, scenario)
    assert code == 1
    restores.report(to_stdout=True)
    headings = [line for line in capfd.readouterr().out.splitlines() if line.startswith("restore")]
    assert headings == ["restore 1: statistics", "restore 3: statistics"]


def test_acceptor_serves_the_backlog_at_its_end(listener: socket.socket) -> None:
    """Who has connected is accepted by close(), with what it has sent; who comes later is
    refused."""

    async def accept() -> list[bytes]:
        accepted: list[socket.socket] = []
        acceptor = Acceptor(listener, accepted.append)
        acceptor.start()
        for word in (b"one", b"two"):
            with connect() as client:
                client.send(word)
        acceptor.close()
        acceptor.close()
        with socket.socket(socket.AF_UNIX) as late:
            assert late.connect_ex(SOCKET) == errno.ECONNREFUSED
        said = [connection.recv(9) for connection in accepted]
        for connection in accepted:
            connection.close()
        return said

    assert asyncio.run(accept()) == [b"one", b"two"]


def test_acceptor_is_closed_while_it_waits_to_try_again(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acceptor that could not accept is closed all the same, and never tries again."""
    monkeypatch.setattr(acceptors, "RETRY_S", 0.01)

    class Full(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(errno.EMFILE, "Too many open files")

    async def accept() -> None:
        full = Full(fileno=os.dup(listener.fileno()))
        full.setblocking(False)
        acceptor = Acceptor(full, lambda connection: None)
        acceptor.start()
        with connect():
            await asyncio.sleep(0.05)
            acceptor.close()
            await asyncio.sleep(0.05)

    asyncio.run(accept())
