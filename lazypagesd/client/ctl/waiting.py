"""Wait for the end of a restore, and show meanwhile how far it is."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from lazypagesd.client.ctl.progress import PAGE_SIZE, has_begun, percent, waiting_text
from lazypagesd.client.ctl.trouble import Trouble
from lazypagesd.client.restore import Progress, Refused, Restore

INTERVAL_S = 0.1
MIB = 1 << 20
STEP_PERCENT = 10

Show = Callable[[Progress], None]


def wait_for(restore: Restore, path: Path) -> None:
    """Return when every page of *restore* is in, or its process gone; Trouble if it has failed.

    Asks how far it is by a visit through the daemon's socket at *path*: on its own connection
    nothing is answered before CRIU has handed all over.
    """
    restore.begin_release()
    with showing(restore.name, sys.stderr) as show:
        # A daemon that is about to stop takes no further question, and answers the release.
        with contextlib.suppress(OSError, Refused), Restore.attach(restore.id, path) as visitor:
            watch(restore, visitor, show)
        state = restore.end_release()
        if not state.ended:
            raise Trouble(f"{restore.name}: it has failed; the daemon's log says why")
        show(state)


def watch(restore: Restore, visitor: Restore, show: Show) -> None:
    """Show how far it is, again and again, until the release of *restore* is answered."""
    due = time.monotonic()
    while not select.select([restore], [], [], max(due - time.monotonic(), 0))[0]:
        show(visitor.progress())
        # Where an answer was late, those in between are left out.
        due = max(due + INTERVAL_S, time.monotonic())


@contextlib.contextmanager
def showing(name: str, stream: TextIO) -> Iterator[Show]:
    """Show it on *stream*: a bar on a terminal, else lines."""
    if stream.isatty():
        from lazypagesd.client.ctl.bar import Bar  # others need not wait for rich

        with Bar(name, stream) as bar:
            yield bar.show
    else:
        yield Lines(name, stream).show


class Lines:
    """A line at the beginning, one when each tenth is in, and one at the end."""

    def __init__(self, name: str, stream: TextIO) -> None:
        """Write to *stream* of the restore *name*."""
        self._name = name
        self._stream = stream
        self._last = ""
        self._step = -1

    def show(self, state: Progress) -> None:
        """Write a line, if there is news."""
        if not has_begun(state):
            self._write(waiting_text(self._name))
            return
        step = percent(state) // STEP_PERCENT
        if step > self._step or state.ended:
            self._step = step
            size = state.nr_pages * PAGE_SIZE / MIB
            self._write(
                f"{self._name}: {percent(state)} % of {state.nr_pages} pages ({size:.1f} MiB)"
            )

    def _write(self, line: str) -> None:
        if line != self._last:
            self._last = line
            self._stream.write(f"{line}\n")
            self._stream.flush()
