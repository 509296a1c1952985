"""Wait for what happens in other processes, with a deadline on everything."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

DEADLINE_S = 30.0
_INTERVAL_S = 0.003


def wait_until(happened: Callable[[], bool], what: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Return once *happened* says so; fail with *what* after *deadline_s*."""
    end = time.monotonic() + deadline_s
    while not happened():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s:g} s")
        time.sleep(_INTERVAL_S)


def wait_for_byte(fd: int, what: str, *, deadline_s: float = DEADLINE_S) -> bytes:
    """Return the byte that arrives on *fd*, or nothing at its end."""
    ready, _, _ = select.select([fd], [], [], deadline_s)
    if not ready:
        raise AssertionError(f"{what}: not within {deadline_s:g} s")
    return os.read(fd, 1)


def wait_for_exit(pid: int, what: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Return once *pid*, which need not be our child, is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([pidfd], [], [], deadline_s)[0]:
            raise AssertionError(f"{what}: pid {pid} still there after {deadline_s:g} s")
    finally:
        os.close(pidfd)
