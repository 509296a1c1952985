"""The victim of the demo: compiled where it can be, started, and asked over a unix socket.

Some facts about CRIU that this rests on: it dumps a listening unix socket and no half-closed
connection; before 4.2 it dumps no TCP socket on Linux 6.16 or newer, where SO_PASSCRED is refused;
to restore the socket it binds the path again, which therefore must not be there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lazypagesd.demo.trouble import Trouble

PAGE_SIZE = 4096
MEMORY_ADDR = 0x100000000000  # as in victim.h
_SOURCES = Path(__file__).parent
_DEADLINE_S = 30.0
_MAX_PATH = 107  # man 7 unix: sun_path, and a zero byte
_INTERVAL_S = 0.001


@dataclass(frozen=True, slots=True)
class Answer:
    """What the process says to ``get``."""

    word: str
    is_right: bool
    latency_ns: int
    number: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the process says to ``verify``."""

    nr_pages: int
    nr_wrong: int


@dataclass(frozen=True, slots=True)
class Victim:
    """Where the process is found, alive or restored."""

    program: list[str]
    directory: Path
    pid: int
    socket: Path
    nr_pages: int

    def is_alive(self) -> bool:
        """Say whether its pid is that of a victim."""
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
            return os.fsencode(self.socket) in command.split(b"\0")
        return False

    def resident_bytes(self) -> int:
        """Return how much memory the kernel has for it; 0 when it is gone."""
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_SIZE
        return 0

    def connect(self) -> Connection:
        """Open a connection."""
        return Connection(self.socket)

    def kill(self) -> None:
        """End it, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.pid)
            try:
                if self.is_alive():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


class Connection:
    """A connection to the process; a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_DEADLINE_S)
        try:
            self._socket.connect(os.fspath(path))
        except BaseException:
            self._socket.close()
            raise
        self._replies = self._socket.makefile("r")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Until the process has closed its end, too: CRIU does not dump half-closed connections.
        self._socket.shutdown(socket.SHUT_WR)
        self._replies.read()
        self._replies.close()
        self._socket.close()

    def get(self, page: int) -> Answer:
        """Ask for the word of *page*."""
        word, right, latency_ns, number = self._ask(f"get {page}")
        return Answer(f"0x{word}", right == "right", int(latency_ns), int(number))

    def verify(self) -> Verdict:
        """Have every page looked at."""
        nr_pages, nr_wrong = self._ask("verify")
        return Verdict(int(nr_pages), int(nr_wrong))

    def _ask(self, question: str) -> list[str]:
        self._socket.sendall(f"{question}\n".encode())
        reply = self._replies.readline()
        if not reply:
            raise Trouble(f"the process did not answer {question!r}")
        return reply.split()


def build(directory: Path) -> list[str]:
    """Compile the victim into *directory*; without a compiler, settle for the one in Python."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return [sys.executable, os.fspath(_SOURCES / "victim_script.py")]
    binary = directory / "victim"
    command: list[str | Path] = [compiler, "-O2", "-o", binary, *_SOURCES.glob("*.c")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S)
    if run.returncode != 0:
        raise Trouble(f"the demo's process does not compile: {run.stderr}")
    return [os.fspath(binary)]


def start(program: list[str], directory: Path, nr_pages: int) -> Victim:
    """Start a victim with *nr_pages* of memory, and return when it answers."""
    path = directory / "victim.socket"
    if (length := len(os.fsencode(path))) > _MAX_PATH:
        raise Trouble(
            f"{path}: too long for a socket ({length} bytes, {_MAX_PATH} at most):"
            " let TMPDIR be a directory of a shorter name"
        )
    process = spawn(program, directory, path, nr_pages)
    victim = Victim(program, directory, process.pid, path, nr_pages)
    wait_until_it_listens(process, path)
    return victim


def spawn(program: list[str], directory: Path, *args: object) -> subprocess.Popen[bytes]:
    """Run the victim such that CRIU can dump it: a session of its own, no terminal, no pipes."""
    with (directory / "victim.log").open("ab") as log:
        return subprocess.Popen(
            [*program, *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )


def wait_until_it_listens(process: subprocess.Popen[bytes], path: Path) -> None:
    """Return when *process* listens at *path*."""
    end = time.monotonic() + _DEADLINE_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError), Connection(path):
            return
        time.sleep(_INTERVAL_S)
    process.kill()
    raise Trouble(f"the demo's process does not answer (exit code {process.wait()})")
