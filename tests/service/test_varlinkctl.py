"""The admin socket, asked by systemd's own client, of a release that has one."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lazypagesd.service.manager.interface import FILE
from tests.service.asking import Lazy, admin_path, lazily_served
from tests.service.stage import BASE, Stage, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd

MANAGER = "org.lazypages.Manager"


@pytest.fixture(scope="session")
def varlinkctl(repository: Path) -> Path:
    """The program, which bootstrap.sh fetches."""
    program = repository / ".build/varlinkctl/varlinkctl"
    if not program.exists():
        pytest.skip(f"{program}: not there: tests/setup/bootstrap.sh could not fetch it")
    return program


@pytest.fixture
def lazy(stage: Stage) -> Iterator[Lazy]:
    """A process that is filled only where it is touched, and has touched a page."""
    lazy = lazily_served(stage)
    lazy.read(3)
    lazy.on_record("faults", 1)
    yield lazy
    lazy.close()


class Ctl:
    """Runs it against a daemon."""

    def __init__(self, program: Path, lazy: Lazy) -> None:
        self._program = program
        self._address = f"unix:{admin_path(lazy.server)}"

    def __call__(self, verb: str, *words: str, more: bool = False) -> str:
        """Return what it prints, which works."""
        flags = ["--more"] if more else []
        return run(os.fspath(self._program), *flags, verb, self._address, *words)

    def call(self, method: str, **parameters: object) -> Any:
        """Return the reply to a call."""
        return json.loads(self("call", f"{MANAGER}.{method}", json.dumps(parameters)))

    def stream(self, method: str, **parameters: object) -> list[Any]:
        """Return all replies to a call with more, to a method that is named in full."""
        text = self("call", method, json.dumps(parameters), more=True)
        # Which it prints one after the other, on a line each or on many.
        decoder, found, at = json.JSONDecoder(), [], 0
        while text[at:].strip():
            at += len(text[at:]) - len(text[at:].lstrip())
            reply, at = decoder.raw_decode(text, at)
            found.append(reply)
        return found


@pytest.fixture
def ctl(varlinkctl: Path, lazy: Lazy) -> Ctl:
    """What runs it."""
    return Ctl(varlinkctl, lazy)


def run(*command: str) -> str:
    """Return what a command prints, which works."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_interface_file_is_valid(varlinkctl: Path) -> None:
    """Systemd's parser takes it."""
    assert f"interface {MANAGER}" in run(os.fspath(varlinkctl), "validate-idl", os.fspath(FILE))


def test_service_and_interfaces_are_told_of(ctl: Ctl) -> None:
    """info, list-interfaces, list-methods, introspect."""
    assert "lazypagesd" in ctl("info")
    assert MANAGER in ctl("list-interfaces").split()
    assert f"{MANAGER}.Explain" in ctl("list-methods", MANAGER).split()
    assert "method Explain" in ctl("introspect", MANAGER)
    assert "method List" in ctl("introspect", "io.systemd.Metrics")


def test_every_question_is_answered(ctl: Ctl, lazy: Lazy) -> None:
    """By call, each method that changes nothing."""
    assert ctl.call("Describe")["nr_restores"] == 1
    assert ctl.call("ListRestores", ended=True)["restores"][0]["id"] == 1
    assert ctl.call("ListSessions", restore=1)["sessions"][0]["id"] == "1/0"
    assert ctl.call("GetSession", pid=lazy.pid)["session"]["id"] == "1/0"
    assert ctl.call("GetFaults", session="1/0")["faults"][0]["addr"] == BASE + 3 * 4096
    assert ctl.call("GetSteps", restore=1)["steps"] == []
    assert ctl.call("Explain", pid=lazy.pid)["explanations"][0]["session"] == "1/0"
    assert "lazypagesd_faults_total" in ctl.call("GetMetrics")["text"]


def test_every_order_is_carried_out(ctl: Ctl, lazy: Lazy) -> None:
    """By call, each method that changes something."""
    ctl.call("Pause", restore=1)
    ctl.call("SetPolicy", restore=1, pace={"kind": "paced", "rate": 1 << 20})
    [restore] = ctl.call("ListRestores")["restores"]
    assert (restore["state"], restore["pace"]["rate"]) == ("paused", 1 << 20)
    ctl.call("Resume", restore=1)
    assert ctl.call("Retry", restore=1)["nr_sessions"] == 0
    assert ctl.stream(f"{MANAGER}.Drain", restore=1)[-1]["progress"]["nr_missing"] == 0
    ctl.call("Detach", session="1/0")
    lazy.restored.check()


def test_streams_are_streamed(ctl: Ctl, lazy: Lazy) -> None:
    """By call --more: Watch, to the end of its restore, the record, and systemd's metrics."""
    faults = ctl.stream(f"{MANAGER}.GetFaults")
    assert [fault["addr"] for piece in faults for fault in piece["faults"]] == [BASE + 3 * 4096]
    families = {each["name"] for each in ctl.stream("io.systemd.Metrics.Describe")}
    assert {each["name"] for each in ctl.stream("io.systemd.Metrics.List")} <= families
    ctl.call("Drain", restore=1)
    assert lazy.restore.release().ended
    lazy.restore.close()
    lazy.server.wait_for_log("restore 1 (web): ended")
    [past] = ctl.call("ListRestores", ended=True)["restores"]
    assert past["state"] == "ended"
