"""The lazy-pages daemon of the demo, as a subprocess."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

from lazypagesd.demo.checkpoints import Place
from lazypagesd.demo.trouble import Trouble

LOG = "lazy-pages.log"
_STATISTICS = "statistics"
_DEADLINE_S = 30.0


class Daemon:
    """A context manager that runs the daemon and ends it, if it has not ended by itself."""

    def __init__(self, command: list[str], place: Place) -> None:
        self._log = place.work / LOG
        self._ended_s: float | None = None
        status_fd, write_fd = os.pipe()
        options: list[str | Path] = ["-D", place.images, "-W", place.work, "-o", LOG, "-v3"]
        try:
            self._process = subprocess.Popen(
                [*command, *options, "--status-fd", str(write_fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # its statistics: they are in the log as well
                pass_fds=[write_fd],
                process_group=0,
            )
        finally:
            os.close(write_fd)
        try:
            self._wait_ready(status_fd)
        finally:
            os.close(status_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def ended_s(self) -> float | None:
        """Return the time.monotonic() at which it was first seen to have ended, if it has."""
        if self._ended_s is None and self._process.poll() is not None:
            self._ended_s = time.monotonic()
        return self._ended_s

    def exit_code(self) -> int:
        """Wait for its end and return the exit code."""
        return self._process.wait(_DEADLINE_S)

    def last_words(self) -> list[str]:
        """Return the last lines of its log."""
        return self._lines()[-5:]

    def statistics(self) -> list[str]:
        """Return the lines of its log that come after the last heading of statistics."""
        lines = [line.partition(") ")[2] for line in self._lines()]  # without the time
        starts = [i for i, line in enumerate(lines) if _STATISTICS in line]
        return lines[starts[-1] + 1 :] if starts else []

    def _wait_ready(self, status_fd: int) -> None:
        ready, _, _ = select.select([status_fd], [], [], _DEADLINE_S)
        if not ready or os.read(status_fd, 1) != b"\0":
            code = self._kill()
            raise Trouble("\n".join([f"the daemon did not start ({code})", *self.last_words()]))

    def _kill(self) -> int:
        # With its keeper, which would go on in its place.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def _lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
