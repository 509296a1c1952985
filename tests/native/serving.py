"""Sessions served by a real engine, for as long as a block lasts, and what they tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from lazypagesd.engine.engine import Engine
from lazypagesd.engine.session import Session, Trouble
from lazypagesd.engine.state import State
from lazypagesd.sources.file import FileSource
from lazypagesd.sources.testing import TestingSource
from tests.native.states import PAGE, Region, c_regions
from tests.native.toucher import DEADLINE_S, Toucher


def data_of(nr_pages: int) -> bytes:
    """Return pages of which each repeats its number, from 1."""
    return b"".join(bytes([i + 1]) * PAGE for i in range(nr_pages))


class Served:
    """A toucher's session; the pages of its arena come from a source."""

    def __init__(self, toucher: Toucher, source: FileSource, offset: int, nr_pages: int) -> None:
        self.toucher = toucher
        regions = c_regions([Region(toucher.arena, nr_pages, offset, 0)])
        state = State.create("served", regions, 1, nr_pages, 1)
        self.session = Session("served", toucher.give_uffd(), state, [source])
        self.troubles: list[Trouble] = []
        self._news = asyncio.Event()
        self.session.on_trouble = self._on_trouble
        self.session.on_end = lambda session: self._news.set()

    def _on_trouble(self, session: Session, trouble: Trouble) -> None:
        self.troubles.append(trouble)
        self._news.set()

    def start_read(self, page: int, nr_pages: int = 1) -> int:
        """Let the toucher begin to read pages of its arena."""
        return self.toucher.start("read", self.toucher.arena + page * PAGE, nr_pages)

    async def result(self, command: int) -> Any:
        """Wait for a command of the toucher's, while the loop goes on."""
        return await asyncio.to_thread(self.toucher.result, command)

    async def read(self, page: int, nr_pages: int = 1) -> Any:
        """Return the first bytes of pages of the arena, as the toucher reads them."""
        return await self.result(self.start_read(page, nr_pages))

    async def wait_for_trouble(self, nr_troubles: int) -> None:
        """Wait until there have been so many reports."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.troubles) < nr_troubles:
                await self._wait_for_news()

    async def wait_for_end(self) -> str:
        """Wait until the session has ended, and return how."""
        async with asyncio.timeout(DEADLINE_S):
            while self.session.final is None:
                await self._wait_for_news()
        return str(self.session.end)

    async def _wait_for_news(self) -> None:
        await self._news.wait()
        self._news.clear()


@asynccontextmanager
async def serving(sources: Sequence[TestingSource], nr_pages: int) -> AsyncIterator[list[Served]]:
    """Serve a new toucher from each source, all by one worker; in the end nothing is left."""
    engine = Engine(nr_workers=1)
    touchers = [Toucher(nr_pages) for _ in sources]
    engine.start()
    try:
        served = [
            Served(toucher, source.as_source(), source.offset, nr_pages)
            for toucher, source in zip(touchers, sources, strict=True)
        ]
        for one in served:
            engine.attach(one.session)
        yield served
    finally:
        for toucher in touchers:
            toucher.__exit__()
        async with asyncio.timeout(DEADLINE_S):
            await engine.stop()
