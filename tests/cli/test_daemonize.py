"""Going to the background, with real forks."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lazypagesd.service.daemonize import write_pidfile

# Goes to the background, says on a pipe what became of it, and waits to be told to end.
DAEMON = """
import os, sys
from lazypagesd.service.daemonize import daemonize
says, hears = int(sys.argv[1]), int(sys.argv[2])
daemonize(pidfile=sys.argv[3] if len(sys.argv) > 3 else None)
fds = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
line = f"{os.getpid()} {os.getsid(0)} {os.getcwd()} {' '.join(fds)} {len(os.listdir('.'))}"
os.write(says, line.encode())
os.close(says)
os.read(hears, 1)
"""


@dataclass
class Started:
    """A command that may have left a daemon behind."""

    command: subprocess.CompletedProcess[str]
    said: bytes

    @property
    def words(self) -> list[str]:
        return self.said.decode().split()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    starter.end()


class Starter:
    """Runs DAEMON in a directory; whatever it leaves ends when this does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._hears, self._tell = os.pipe()

    def __call__(self, *pidfile: str) -> Started:
        hear, says = os.pipe()
        command = subprocess.run(
            [sys.executable, "-c", DAEMON, str(says), str(self._hears), *pidfile],
            cwd=self.directory,
            pass_fds=(says, self._hears),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        os.close(says)
        with os.fdopen(hear, "rb") as pipe:
            return Started(command, pipe.read())

    def end(self) -> None:
        os.close(self._tell)
        os.close(self._hears)


def test_parent_exits_and_child_goes_on(start: Starter) -> None:
    """The command returns 0; its child leads a session, where it was, with no terminal."""
    started = start()
    assert (started.command.returncode, started.command.stderr) == (0, "")
    pid, session, directory, *fds, _ = started.words
    assert pid == session
    assert directory == str(start.directory)
    assert fds == ["/dev/null"] * 3


def test_pidfile_is_there_before_the_child_goes_on(start: Starter) -> None:
    """It holds the child's pid in decimal, without a newline, for its owner alone."""
    started = start("daemon.pid")
    file = start.directory / "daemon.pid"
    assert file.read_text() == started.words[0]
    assert started.words[-1] == "1"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_existing_pidfile_ends_both(start: Starter) -> None:
    """The command fails, the file stays as it was, and no child goes on."""
    file = start.directory / "daemon.pid"
    file.write_text("1")
    started = start("daemon.pid")
    assert started.command.returncode == 1
    assert "FileExistsError" in started.command.stderr
    assert started.said == b""
    assert file.read_text() == "1"


def test_child_does_not_outlive_a_parent_that_was_killed() -> None:
    """A parent that dies with its pid file unwritten takes the child with it."""
    code = """
import os, signal
from lazypagesd.service import daemonize
def die(path, pid):
    os.write(1, str(pid).encode())
    os.kill(os.getpid(), signal.SIGKILL)
daemonize.write_pidfile = die
try:
    daemonize.daemonize(pidfile="x")
finally:
    os.write(int(os.environ["SAYS"]), b"gone")
"""
    hear, says = os.pipe()
    command = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"SAYS": str(says)},
        pass_fds=(says,),
        capture_output=True,
        timeout=30,
        check=False,
    )
    os.close(says)
    with os.fdopen(hear, "rb") as pipe:
        assert pipe.read() == b"gone"
    assert command.returncode == -signal.SIGKILL


def test_pidfile_is_never_written_over(tmp_path: Path) -> None:
    """Another daemon's pid file is left alone."""
    path = tmp_path / "daemon.pid"
    write_pidfile(str(path), 12)
    with pytest.raises(FileExistsError):
        write_pidfile(str(path), 34)
    assert path.read_text() == "12"
