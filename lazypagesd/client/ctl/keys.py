"""Single keys from a terminal, which is as it was when all is over."""

from __future__ import annotations

import os
import select
import termios
import tty
from types import TracebackType
from typing import Self

ESCAPES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}


class Keys:
    """Reads keys from the terminal *fd* while the block lasts."""

    def __init__(self, fd: int) -> None:
        """Prepare to."""
        self._fd = fd

    def __enter__(self) -> Self:
        """Have each key as it is pressed, unseen; signals are made of keys still."""
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def wait(self, timeout_s: float) -> str | None:
        """Return the next key, by its character or name; None if none is pressed in time."""
        if not select.select([self._fd], [], [], max(timeout_s, 0))[0]:
            return None
        data = os.read(self._fd, 16)
        return ESCAPES.get(data) or data[:1].decode(errors="replace")
