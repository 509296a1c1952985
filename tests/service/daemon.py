"""The drop-in as a subprocess."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.descriptors import descriptors

DEADLINE_S = 20.0

# What the process of a keeper goes by.
KEEPER = "lazypagesd-keep"

# The command, with some of its times changed: nobody wants to wait for them.
_PROGRAM = """
import importlib, sys
for setting in sys.argv.pop(1).split():
    name, seconds = setting.split("=")
    module, variable = name.rsplit(".", 1)
    setattr(importlib.import_module(module), variable, float(seconds))
from lazypagesd.cli.main import main
sys.exit(main())
"""

# Held faults are tried again so often, and not once in ten seconds.
OFTEN = {
    "lazypagesd.engine.engine.RETRY_INTERVAL_S": 0.2,
    "lazypagesd.engine.engine.PROBE_INTERVAL_S": 0.1,
}
# A failed restore's processes are given up almost at once.
NO_GRACE = {"lazypagesd.service.restores.FAILED_GRACE_S": 0.2}
# Nothing but the end of its processes ends a restore that has failed.
LONG_GRACE = {"lazypagesd.service.restores.FAILED_GRACE_S": 60.0}


def command_with(times: Mapping[str, float]) -> list[str]:
    """Return the command ``lazypagesd``, with some of its times changed."""
    if not times:
        return [sys.executable, "-m", "lazypagesd"]
    settings = " ".join(f"{name}={seconds}" for name, seconds in times.items())
    return [sys.executable, "-c", _PROGRAM, settings]


class Daemon:
    """One run of ``lazypagesd lazy-pages``; its log is stderr, unless it is told otherwise."""

    def __init__(
        self,
        images: Path,
        work: Path,
        *options: str,
        times: Mapping[str, float] | None = None,
        stdout: int = subprocess.PIPE,
        keeper: bool = False,
        command: Sequence[str] | None = None,
    ) -> None:
        self.work = work
        self._log = work / "stderr"
        self._status_fd, write_fd = os.pipe()
        command = [*(command or command_with(times or {})), "--no-default-config", "lazy-pages"]
        command += ["-D", str(images), "-W", str(work)]
        # It would go on with what a test kills.
        command += [] if keeper else ["--no-keeper"]
        try:
            with self._log.open("wb") as stderr:
                self.process = subprocess.Popen(
                    [*command, "--status-fd", str(write_fd), *options],
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=[write_fd],
                    process_group=0,
                )
        finally:
            os.close(write_fd)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    @property
    def errors(self) -> list[str]:
        """The errors in its log."""
        return re.findall("^(?:\\(.*\\) )?Error: (.*)$", self.log, flags=re.MULTILINE)

    def status(self) -> bytes:
        """Wait for the status byte; return nothing when there will be none."""
        assert select.select([self._status_fd], [], [], DEADLINE_S)[0], "no status"
        return os.read(self._status_fd, 1)

    def wait_ready(self) -> None:
        """Return when a restore may connect."""
        status = self.status()
        assert status == b"\0", self.log

    def wait(self) -> int:
        """Return its exit code, or minus the signal."""
        return self.process.wait(DEADLINE_S)

    def stdout(self) -> str:
        """Return what it has printed; it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def wait_for_log(self, text: str) -> None:
        """Return when *text* is in the log."""
        wait_until(lambda: text in self.log, lambda: f"{text!r} in the log: {self.log}")

    def wait_for_fds(self, count: int) -> None:
        """Return when it has *count* descriptors open, and no more."""
        wait_until(lambda: self.nr_fds() == count, lambda: f"{count} of {self.fds()} to be open")

    def nr_fds(self) -> int:
        """Return how many descriptors it has open."""
        return len(self.fds())

    def fds(self) -> list[str]:
        """Return its descriptors, each with what it is open on."""
        return [f"{fd} {what}" for fd, what in descriptors(self.process.pid).items()]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def close(self) -> None:
        """Kill it, if it still runs, and whoever comes after it; print the log, which pytest shows
        of a test that failed."""
        kill_group(self.process.pid)
        self.process.wait(DEADLINE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._status_fd)
        print(f"--- {self._log.name}", self.log, sep="\n")


def members(group: int) -> dict[int, str]:
    """Return the processes of a group that live, by pid, with the names that they go by."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended a moment ago
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            state, _parent, pgrp = rest.split()[:3]
            if int(pgrp) == group and state != "Z":
                found[int(path.parent.name)] = name
    return found


def kill_group(group: int) -> None:
    """Kill every daemon and keeper of a group, and wait until none is left.

    Of a group that has ended the number may be another's, which is left alone.
    """

    def is_empty() -> bool:
        ours = [pid for pid in members(group) if is_daemon(pid)]
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not ours

    wait_until(is_empty, lambda: f"{members(group)} to end")


def is_daemon(pid: int) -> bool:
    """Whether a process was started to serve: a keeper has the same command."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(word in command for word in (b"lazypagesd", b"tests.torture.engine"))


def wait_until(happened: Callable[[], bool], what: Callable[[], str]) -> None:
    """Return once *happened* says so; fail with *what* otherwise."""
    end = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < end, what()
        time.sleep(0.003)
