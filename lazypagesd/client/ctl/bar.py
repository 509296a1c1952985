"""A bar on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from lazypagesd.client.ctl.progress import PAGE_SIZE, has_begun, nr_done, waiting_text
from lazypagesd.client.restore import Progress


class Bar:
    """Pages, bytes, bytes a second, and how long it will take, in one line."""

    def __init__(self, name: str, stream: TextIO) -> None:
        """Prepare to draw on *stream*."""
        self._name = name
        self._progress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[pages]}"),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream),
        )
        self._task = self._progress.add_task(name, total=None, pages="")

    def __enter__(self) -> Self:
        """Draw, from now on."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave what was drawn last."""
        self._progress.stop()

    def show(self, state: Progress) -> None:
        """Draw how far it is."""
        if not has_begun(state):
            self._progress.update(self._task, description=waiting_text(self._name))
            return
        # A process that forks has its pages twice, so the total may grow.
        self._progress.update(
            self._task,
            description=self._name,
            total=state.nr_pages * PAGE_SIZE,
            completed=nr_done(state) * PAGE_SIZE,
            pages=f"{nr_done(state)}/{state.nr_pages} pages",
        )
