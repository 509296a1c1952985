"""``lazypagesd serve`` without a service manager: the keeper hands channels to the next daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazypagesd.proto import handoff_pb2 as pb
from tests.sanitizers import Interpreter
from tests.service.channelled import ChannelStage, at, channels
from tests.service.daemon import DEADLINE_S, kill_group, wait_until
from tests.service.manager import Numbered
from tests.service.scene import LAZY
from tests.service.serving import FINISHED, PAGE_SIZE, RELEASE, Client, opening
from tests.support.victim import confine, victim_program

__all__ = ["channels", "confine", "victim_program"]

pytestmark = pytest.mark.uffd


@pytest.fixture
def crash() -> str:
    """Where the daemon is to die: POINT:N, as native/crash.c has it."""
    return ""


@pytest.fixture
def interpreter(crash: str, request: pytest.FixtureRequest) -> Interpreter:
    """What runs the daemon, which has crash points if it is to die at one."""
    found: Interpreter = request.getfixturevalue("crashing") if crash else Interpreter()
    return found


@pytest.fixture
def daemon(
    tmp_path: Path, crash: str, interpreter: Interpreter
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon with a keeper, and those that follow it, in a group of their own."""
    environment = {k: v for k, v in interpreter.whole_environment.items() if k != "NOTIFY_SOCKET"}
    environment["LAZYPAGESD_CRASH_ONCE"] = os.fspath(tmp_path / "crashed")
    if crash:
        environment["LAZYPAGESD_CRASH"] = crash
    with (tmp_path / "log").open("ab") as log:
        daemon = subprocess.Popen(
            interpreter.command("-m", "lazypagesd", "serve", "-v"),
            cwd=interpreter.directory,
            stdin=subprocess.DEVNULL,
            stderr=log,
            env=environment | {"RUNTIME_DIRECTORY": os.fspath(tmp_path)},
            process_group=0,
        )
    yield daemon
    kill_group(daemon.pid)
    daemon.wait(DEADLINE_S)
    print((tmp_path / "log").read_text())


@pytest.fixture
def client(tmp_path: Path, daemon: subprocess.Popen[bytes]) -> Iterator[Numbered]:
    """A client that has connected as soon as it could."""
    clients: list[Client] = []

    def connect() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            clients.append(Client(tmp_path / "handoff.socket"))
        return bool(clients)

    wait_until(connect, lambda: (tmp_path / "log").read_text())
    yield Numbered(clients[0])
    clients[0].close()


def test_event_is_read_by_the_daemon_that_the_keeper_starts(
    channels: ChannelStage, daemon: subprocess.Popen[bytes], client: Numbered
) -> None:
    """A process that discards memory while its daemon is dead goes on, in every byte."""
    process = channels.channelled()
    client.do(opening(pace=LAZY))
    process.begin_to_open()
    client.do(process.request(), process.fd, process.file)
    process.opened()
    client.do(FINISHED)
    process.check(60, 16)
    os.kill(daemon.pid, signal.SIGSTOP)
    os.waitpid(daemon.pid, os.WUNTRACED)
    process.victim.begin_aside("chdiscard", at(70), 20 * PAGE_SIZE)
    daemon.kill()
    daemon.wait(DEADLINE_S)
    assert process.victim.call("rejoin") == 0
    process.check_zero(70, 20)
    process.check(0, 70)
    client.do(pb.Request(set_pace=pb.SetPace(pace=pb.Pace())))
    assert client.do(RELEASE).state.ended
    process.check(90, 110)


WINDOWS = [f"{point}:{n}" for point in ("received", "kept", "noted", "told") for n in range(1, 6)]


# The first one waits until a copy has been built.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("crash", WINDOWS)
def test_daemon_may_die_in_the_middle_of_an_event(
    channels: ChannelStage, client: Numbered, tmp_path: Path
) -> None:
    """Of whichever event a daemon has done whichever part, the next one does the rest."""
    process = channels.channelled()
    client.do(opening(pace=LAZY))
    process.begin_to_open()
    client.do(process.request(), process.fd, process.file)
    process.opened()
    client.do(FINISHED)
    child = process.fork()
    process.change()
    child.victim.call("chdiscard", at(0), 8 * PAGE_SIZE)
    child.check_zero(0, 8)
    child.check(8, 192)
    process.check_changed()
    client.do(pb.Request(set_pace=pb.SetPace(pace=pb.Pace())))
    assert client.do(RELEASE).state.ended
    log = (tmp_path / "log").read_text()
    assert (tmp_path / "crashed").exists()
    assert log.count("taken over") == 1
    assert "has forked, and the daemon died" not in log
