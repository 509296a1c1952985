"""Show the process fill up while it is asked for its pages.

What is shown is its resident memory, which anybody can see in /proc and which needs nobody's word.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from lazypagesd.demo.daemon import Daemon
from lazypagesd.demo.trouble import Trouble
from lazypagesd.demo.victim import PAGE_SIZE, Victim

_INTERVAL_S = 0.01
_DEADLINE_S = 120.0

T = TypeVar("T")


def watch(console: Console, victim: Victim, daemon: Daemon, work: Callable[[], T]) -> T:
    """Do *work* and show *victim* grow, until that is done and *daemon* has brought the last."""
    full = victim.nr_pages * PAGE_SIZE
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(work)
        show = _bar if console.is_terminal else _quarters
        show(console, victim, full, _busy(daemon, future))
    return future.result()


def _busy(daemon: Daemon, future: Future[T]) -> Callable[[], bool]:
    deadline = time.monotonic() + _DEADLINE_S

    def busy() -> bool:
        if time.monotonic() > deadline:
            raise Trouble(f"the memory was not filled within {_DEADLINE_S:g} s")
        return daemon.ended_s() is None or not future.done()

    return busy


def _bar(console: Console, victim: Victim, full: int, busy: Callable[[], bool]) -> None:
    columns = (TextColumn("     "), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=full)
        while busy():
            progress.update(task, completed=min(full, victim.resident_bytes()))
            time.sleep(_INTERVAL_S)
        progress.update(task, completed=min(full, victim.resident_bytes()))


def _quarters(console: Console, victim: Victim, full: int, busy: Callable[[], bool]) -> None:
    shown = 0
    while busy() or shown < 4:
        quarter = 4 * victim.resident_bytes() // full
        if quarter > shown:
            shown = min(4, quarter)
            console.print(f"      {25 * shown:3} % of its memory is there")
        elif not busy():
            break
        time.sleep(_INTERVAL_S)
