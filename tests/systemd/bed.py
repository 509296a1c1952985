"""A systemd that a test has booted, and what it runs: see tests/setup/systemd-bed.sh."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from lazypagesd.client import Pace, Region, Restore
from lazypagesd.images.mm import PAGE_SIZE
from tests.service.daemon import DEADLINE_S, wait_until
from tests.service.stage import Restored

SCRIPT = Path(__file__).parents[1] / "setup/systemd-bed.sh"
SERVICE, SOCKET = "lazypagesd.service", "lazypagesd.socket"


class Bed:
    """Owns the systemd, and all that runs under it, until close()."""

    def __init__(self, directory: Path, installed: Path) -> None:
        """Boot it, with the files below *installed* laid over the machine's."""
        self._console_file = directory / "console"
        self._stack = ExitStack()
        self._process = subprocess.Popen([SCRIPT, directory, installed], stdin=subprocess.PIPE)
        try:
            file = directory / "pid"
            self._wait(lambda: file.exists() and file.read_text().endswith("\n"))
            self.pid = int(file.read_text())
            self._wait(lambda: self._ask("systemctl", "is-system-running") == "running")
        except BaseException:
            self.close()
            raise

    def _wait(self, happened: Callable[[], bool]) -> None:
        wait_until(
            lambda: happened() or self._process.poll() is not None,
            lambda: f"systemd came up: {self.console}",
        )
        assert self._process.poll() is None, self.console

    @property
    def console(self) -> str:
        """What systemd itself has said."""
        return self._console_file.read_text()

    def path(self, inside: str) -> Path:
        """Return where a file of its is to be found from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def run(self, *command: str) -> str:
        """Run a command in there and return what it prints."""
        done = self.try_run(*command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{self.log()}"
        return done.stdout.strip()

    def try_run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in there, however it ends."""
        entering = ["nsenter", "--target", str(self.pid), "--all", "--"]
        return subprocess.run(
            [*entering, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def _ask(self, *command: str) -> str:
        return self.try_run(*command).stdout.strip()

    def show(self, name: str) -> str:
        """Return a property of the service."""
        return self.run("systemctl", "show", "--value", "--property", name, SERVICE)

    def main_pid(self) -> int:
        """Return the daemon's pid as it is known in there."""
        return int(self.show("MainPID"))

    def daemon_pid(self) -> int:
        """Return the daemon's pid as it is known here."""
        inside = str(self.main_pid())
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                lines = status.read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            [pids] = [line.split()[1:] for line in lines if line.startswith("NSpid:")]
            if len(pids) == 2 and pids[1] == inside and self._has(status.parent):
                return int(pids[0])
        raise AssertionError(f"no process {inside}")

    def _has(self, process: Path) -> bool:
        return (process / "ns/pid").readlink() == Path(f"/proc/{self.pid}/ns/pid").readlink()

    def configure(self, *lines: str) -> None:
        """Add settings to the service, which is not running yet."""
        directory = self.path(f"/run/systemd/system/{SERVICE}.d")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "test.conf").write_text("\n".join(["[Service]", *lines, ""]))
        self.run("systemctl", "daemon-reload")

    def listen(self) -> None:
        """Let the socket be there, and nobody behind it yet."""
        self.run("systemctl", "start", SOCKET)

    def restore(self, pace: Pace = Pace.EAGER) -> Restore:
        """Begin a restore, which is left at the end."""
        path = self.path("/run/lazypagesd/handoff.socket")
        return self._stack.enter_context(Restore.open(path=path, pace=pace))

    def hand_over(self, restored: Restored, pace: Pace = Pace.EAGER) -> Restore:
        """Begin a restore that has handed a process over, and has not finished."""
        restore = self.restore(pace)
        parts = restored.image.parts
        regions = [Region(part.start, part.nr_pages, part.key * PAGE_SIZE) for part in parts]
        restore.add_session(restored.fd, regions=regions, files=[restored.file])
        restored.close()
        return restore

    def log(self) -> str:
        """Return what the service and its manager have logged."""
        return self._ask("journalctl", "--no-pager", "-o", "cat", "-u", SERVICE)

    def wait_for_log(self, text: str) -> None:
        """Return when *text* is in the log."""
        wait_until(lambda: text in self.log(), lambda: f"{text!r} in the log: {self.log()}")

    def entries(self, *matches: str) -> list[dict[str, str]]:
        """Return the fields of the journal's entries that have such fields."""
        lines = self.run("journalctl", "--no-pager", "-o", "json", *matches).splitlines()
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Kill all of it."""
        self._stack.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        # Not 0: something of it is left on the machine.
        assert self._process.wait(DEADLINE_S) == 0
