"""Run a program in our place: signals that we get are for it, and its exit code is ours."""

from __future__ import annotations

import os
import select
import signal
from types import TracebackType
from typing import Self

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A program begins with what they do by themselves.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class HeldSignals:
    """From its beginning on, signals wait for the program that is to get them.

    Where there is none by the end, they do what they would have done.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._passed_on = [n for n in PASSED_ON if signal.getsignal(n) is not signal.SIG_IGN]

    def __enter__(self) -> Self:
        """Hold them: Python writes the number of each that comes to a pipe."""
        self._came, self._come = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup_fd = signal.set_wakeup_fd(self._come)
        self._handlers = {n: signal.signal(n, lambda *_: None) for n in self._passed_on}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let them go."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_fd)
        os.close(self._come)
        left_over = self._take()
        os.close(self._came)
        for each in left_over:
            signal.raise_signal(each)

    def run(self, words: list[str]) -> int:
        """Run the program *words*, found as a shell does; return its exit code.

        The code of a program that a signal ended is 128 and the signal, as a shell has it.
        Raises OSError where it cannot be started.
        """
        pid = os.posix_spawnp(words[0], words, os.environ, setsigdef=IGNORED_BY_PYTHON)
        pidfd = os.pidfd_open(pid)
        try:
            while pidfd not in select.select([pidfd, self._came], [], [])[0]:
                for number in self._take():
                    # A terminal has told the program already; a second time does no harm.
                    os.kill(pid, number)
        finally:
            os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code if code >= 0 else 128 - code

    def _take(self) -> list[int]:
        try:
            return [number for number in os.read(self._came, 64) if number in self._passed_on]
        except BlockingIOError:  # none
            return []
