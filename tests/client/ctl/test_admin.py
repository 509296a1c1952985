"""Commands that ask the daemon, and tell it what to do, about a real process."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lazypagesd.client.ctl.completion import SHELLS
from lazypagesd.client.ctl.main import COMMANDS, main
from lazypagesd.client.ctl.trouble import NO_DAEMON, UNKNOWN
from tests.service.asking import Lazy, admin_path, lazily_served
from tests.service.stage import BASE, Stage, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd

NOT_A_TERMINAL = re.compile(r"\x1b\[")


@pytest.fixture
def lazy(stage: Stage) -> Iterator[Lazy]:
    """A process that is filled only where it is touched, and has touched two pages."""
    lazy = lazily_served(stage)
    lazy.read(3, 2)
    yield lazy
    lazy.close()


class Told:
    """Runs commands against a daemon."""

    def __init__(self, lazy: Lazy, capsys: pytest.CaptureFixture[str]) -> None:
        self._socket = str(admin_path(lazy.server))
        self._capsys = capsys

    def fails(self, *words: str) -> tuple[int, str]:
        """Return the exit code of a command that fails, and its one line."""
        code = main([*words, "--socket", self._socket])
        done = self._capsys.readouterr()
        assert (done.out, done.err.count("\n")) == ("", 1)
        return code, done.err.removeprefix("lazypagesctl: ").rstrip()

    def __call__(self, *words: str) -> str:
        """Return what a command prints, which works."""
        assert main([*words, "--socket", self._socket]) == 0
        done = self._capsys.readouterr()
        assert done.err == ""
        # Colours are for terminals.
        assert not NOT_A_TERMINAL.search(done.out)
        return done.out


@pytest.fixture
def told(lazy: Lazy, capsys: pytest.CaptureFixture[str]) -> Told:
    """What runs commands."""
    return Told(lazy, capsys)


def test_status_is_one_screen(lazy: Lazy, told: Told) -> None:
    """The daemon, its restores as a tree, and how long faults take."""
    text = told("status")
    assert f"pid {lazy.server.process.pid}" in text
    assert "1 restore, 1 session" in text
    assert "no fault waits" in text
    assert re.search(r"restore 1 \(web\)  filling .* 1 % of 564\.0 KiB .* p50 ", text)
    assert f"1/0 (pid {lazy.pid})  serving  1 % of 564.0 KiB  2 faults" in text


def test_lists_are_tables(lazy: Lazy, told: Told) -> None:
    """A line for each restore, or for each session of one."""
    head, line = told("list").splitlines()
    assert head.split()[:4] == ["restore", "state", "pace", "sessions"]
    assert line.startswith("restore 1 (web)  filling  lazy")
    head, line = told("list", "1").splitlines()
    assert line.split()[:3] == ["1/0", str(lazy.pid), "serving"]
    assert told("list", "--numbers") == "1\n"


@pytest.mark.parametrize("target", ["1", "1/0", "pid:PID", "PID"])
def test_show_finds_restores_sessions_and_processes(lazy: Lazy, told: Told, target: str) -> None:
    """By a number, an id, or a pid, which a number is as well that is no restore's."""
    text = told("show", target.replace("PID", str(lazy.pid)))
    assert "1/0" in text
    assert re.search(r"^pages_fault +2$", text, flags=re.MULTILINE)
    assert "latency from" in text


def test_faults_are_shown_oldest_first(lazy: Lazy, told: Told) -> None:
    """With page, kind, outcome and place; steps on request."""
    lines = told("faults", "1").splitlines()
    pages = [line.split()[3] for line in lines[1:]]
    assert pages == [f"{BASE + page * 4096:#x}" for page in (3, 4)]
    assert all("image  filled" in line for line in lines[1:])
    assert len(told("faults", "1/0", "--limit", "1").splitlines()) == 2
    head = ["time", "session", "what", "from", "to", "child"]
    assert told("faults", "1", "--steps").split() == head


def test_explain_says_what_it_waits_for(lazy: Lazy, told: Told) -> None:
    """The daemon's word, and what each thread waits for by /proc."""
    text = told("explain", str(lazy.pid))
    assert "because: it waits for nothing of ours" in text
    assert "threads that wait for a page, by /proc: 0 of 1" in text
    assert told("explain", "1/0").startswith("session 1/0: serving")


def test_explain_knows_the_family_of_a_child(lazy: Lazy, told: Told) -> None:
    """A forked child has a session that nobody can tell by its pid, but its parent's."""
    child = asyncio.run(lazy.restored.victim.fork())
    code, text = told.fails("explain", str(child.pid))
    assert code == UNKNOWN
    assert f"forked by process {lazy.pid} (session 1/0)" in text
    assert "1/0.1" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["list", "7"], "restore 7: none such is being served for you"),
        (["show", "7777777"], "restore 7777777: none such is being served for you"),
        (["show", "7/1"], "session 7/1: none such is being served for you"),
        (["explain", "1"], "process 1: none of its memory is being served for you"),
        (["explain", "99999999"], "process 99999999: there is none"),
        (["pause", "7"], "restore 7: none such is being served for you"),
        (["watch", "7"], "restore 7: none such is being served for you"),
    ],
)
def test_what_is_not_known_is_told_so(told: Told, words: list[str], text: str) -> None:
    """With an exit code of its own."""
    assert told.fails(*words) == (UNKNOWN, text)


def test_no_daemon_is_told_so(lazy: Lazy, capsys: pytest.CaptureFixture[str]) -> None:
    """With an exit code of its own, and what to do."""
    path = lazy.server.directory / "nothing"
    assert main(["status", "--socket", str(path)]) == NO_DAEMON
    assert capsys.readouterr().err == (
        f"lazypagesctl: no daemon listens at {path}: start `lazypagesd serve`\n"
    )


def test_orders_are_carried_out(lazy: Lazy, told: Told) -> None:
    """Paces are set, restores paused and resumed, and what would lose pages is refused."""
    assert told("pause", "1") == told("policy", "1", "64M") == ""
    assert "paused  64.0 MiB/s" in told("list")
    code, text = told.fails("detach", "1/0")
    assert code == 1
    assert text.startswith("session 1/0: 139 pages are missing: `lazypagesctl drain` first")
    assert told("retry") == "0 sessions tried again\n"
    assert told("resume", "1") == ""
    assert lazy.restore.release().ended
    lazy.restored.check()


def test_drain_waits_on_request(
    lazy: Lazy, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says at the end that all is in."""
    words = ["drain", "1", "--wait", "--socket", str(admin_path(lazy.server))]
    assert main(words) == 0
    assert capsys.readouterr().err == "100 % of 564.0 KiB, 0 B missing\n"
    lazy.restored.check()


def test_detach_gives_pages_up_on_request(lazy: Lazy, told: Told) -> None:
    """Which the daemon logs."""
    assert told("detach", f"pid:{lazy.pid}", "--lose-pages") == ""
    lazy.server.wait_for_log("139 pages are lost")


def test_metrics_are_prometheus_text(told: Told) -> None:
    """As it is collected over HTTP."""
    assert 'lazypagesd_image_bytes{restore="1"} 577536.0\n' in told("metrics")


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["list"],
        ["list", "1"],
        ["show", "1/0"],
        ["faults", "1"],
        ["explain", "1/0"],
        ["top"],
        ["metrics"],
        ["pause", "1"],
        ["retry", "1"],
        ["drain", "1"],
    ],
)
def test_json_is_what_the_daemon_says(told: Told, words: list[str]) -> None:
    """One document in a line."""
    text = told(*words, "--json")
    assert text.count("\n") == 1
    assert isinstance(json.loads(text), dict)


def test_watch_ends_with_its_restore(lazy: Lazy) -> None:
    """A line for each change, where it is not shown on a terminal."""
    command = [sys.executable, "-m", "lazypagesd.client.ctl", "watch", "1", "--interval", "0.1"]
    with subprocess.Popen(
        [*command, "--socket", admin_path(lazy.server)], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("restore 1 (web): filling, 1 % of 564.0 KiB")
        lazy.asker.call("Drain", restore=1)
        assert lazy.restore.release().ended
        lazy.restore.close()
        *_, last = watching.stdout
        assert last == "restore 1 (web): ended, 100 % of 564.0 KiB, 0 B/s, all in\n"
    assert watching.returncode == 0


class Terminal:
    """A terminal in which a command runs."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "lazypagesd.client.ctl", *words]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"}
            os.execv(command[0], command)
        self.text = ""

    def wait_for(self, pattern: str) -> None:
        """Return when something matches in what was written since the last time."""
        end = time.monotonic() + 20
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < end, self.text
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 1 << 16).decode()
        self.text = self.text[found.end() :]

    def press(self, key: str) -> None:
        """Press it."""
        os.write(self.fd, key.encode())

    def end(self) -> int:
        """Return the exit code."""
        self.wait_for(re.escape("\x1b[?1049l"))
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def test_top_takes_keys(lazy: Lazy) -> None:
    """A full screen that can be sorted and acted on, and is left as it was."""
    terminal = Terminal("top", "--interval", "0.2", "--socket", str(admin_path(lazy.server)))
    terminal.wait_for(re.escape("\x1b[?1049h"))
    terminal.wait_for("sorted by missing")
    terminal.wait_for(r"restore 1 \(web\)")
    terminal.press("s")
    terminal.wait_for("sorted by rate")
    terminal.press("p")
    terminal.wait_for("paused")
    assert lazy.asker.call("ListRestores")["restores"][0]["state"] == "paused"
    terminal.press("r")
    terminal.wait_for("filling")
    terminal.press("q")
    assert terminal.end() == 0


def test_completions_know_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Of each shell; bash takes its own, and completes by it."""
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert [name for name in COMMANDS if name not in script] == []
    main(["completion", "bash"])
    script = capsys.readouterr().out
    ask = "COMP_WORDS=(lazypagesctl drain --w) COMP_CWORD=2 && _lazypagesctl"
    done = subprocess.run(
        ["bash", "-uc", f'{script}\n{ask}; echo "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "--wait\n"
