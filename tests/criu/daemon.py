"""The lazy-pages daemon as a subprocess: readiness through its status descriptor, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.criu.waiting import DEADLINE_S, wait_for_byte
from tests.service.daemon import kill_group


class Daemon:
    """One run of the daemon's command."""

    def __init__(self, command: list[str], output: Path) -> None:
        self.output = output
        self._status_fd, write_fd = os.pipe()
        try:
            with output.open("wb") as file:
                self.process = subprocess.Popen(
                    [*command, "--status-fd", str(write_fd)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    pass_fds=[write_fd],
                    process_group=0,
                )
        finally:
            os.close(write_fd)

    def status(self) -> bytes:
        """Wait for the status byte; return nothing when the daemon ended without."""
        return wait_for_byte(self._status_fd, "daemon's status byte")

    def wait_ready(self) -> None:
        """Return when the daemon listens."""
        status = self.status()
        assert status == b"\0", f"daemon not ready ({status!r}): {self.output.read_text()}"

    def wait(self) -> int:
        """Return the exit code, when there is one; minus the signal that ended it."""
        return self.process.wait(DEADLINE_S)

    def is_running(self) -> bool:
        """Say whether it has not ended yet."""
        return self.process.poll() is None

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once and wait for it."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """Kill it, if it still runs, and whoever has come after it."""
        kill_group(self.process.pid)
        self.process.wait(DEADLINE_S)
        os.close(self._status_fd)
