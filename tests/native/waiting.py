"""Wait for what other threads and processes do, with a deadline on everything."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from pathlib import Path

from lazypagesd.engine.worker import Worker

DEADLINE_S = 20.0
INTERVAL_S = 0.002
# Where in the kernel a thread waits that is in epoll_wait(2), in older and newer ones.
EPOLL_WAIT = {"ep_poll", "do_epoll_wait"}


def is_asleep(worker: Worker) -> bool:
    """Whether a worker sleeps because it has nothing to do."""
    return Path(f"/proc/self/task/{worker.thread_id}/wchan").read_text() in EPOLL_WAIT


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Return once *happened* says so; fail with *what* when it never does."""
    end = time.monotonic() + DEADLINE_S
    while not happened():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {DEADLINE_S:g} s")
        time.sleep(INTERVAL_S)


def wait_readable(fd: int, what: str) -> None:
    """Return once *fd* can be read."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(DEADLINE_S * 1000):
        raise AssertionError(f"{what}: not within {DEADLINE_S:g} s")
