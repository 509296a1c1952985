"""Sources that wait, fail or come short, under sessions of real processes."""

from __future__ import annotations

import asyncio
import errno

import pytest

from lazypagesd.engine.session import Session, Trouble
from lazypagesd.native import lib
from lazypagesd.sources.testing import Delayed, Failing, Short
from tests.native.serving import data_of, serving
from tests.native.states import PAGE
from tests.native.toucher import DEADLINE_S
from tests.native.waiting import is_asleep, wait_until

pytestmark = pytest.mark.uffd

NR_PAGES = 40
DATA = data_of(NR_PAGES)
NUMBERS = list(range(1, NR_PAGES + 1))
needs_root = pytest.mark.root  # to mount the file of a Delayed source


def facts(trouble: Trouble) -> tuple[int, str | None, int, int | None, bool]:
    return (
        trouble.addr,
        trouble.source,
        trouble.offset,
        trouble.error.errno,
        trouble.waiting,
    )


def wait_asleep(session: Session) -> None:
    """Return when the session's worker sleeps because it has nothing to do."""
    worker = session.worker
    assert worker is not None
    wait_until(lambda: is_asleep(worker), "a worker asleep")


@needs_root
def test_cold_fault_holds_up_nobody_else() -> None:
    """While a fault waits for its source, another session of the same worker is served."""

    async def scenario() -> None:
        with Delayed(DATA) as cold, Short(DATA, len(DATA)) as warm:
            async with serving([cold, warm], NR_PAGES) as (waiting, other):
                fault = waiting.start_read(3)
                await asyncio.to_thread(cold.wait_for_read, DEADLINE_S)
                assert await other.read(0, NR_PAGES) == NUMBERS
                assert not waiting.toucher.has_replied()
                assert waiting.session.counters.misses == 1
                cold.release()
                assert await waiting.result(fault) == [4]

    asyncio.run(scenario())


@needs_root
def test_cold_faults_of_one_session_wait_together() -> None:
    """Threads that fault while reads wait are all served in the end, more of them than reads that
    fit."""

    async def scenario() -> None:
        data = data_of(255)
        with Delayed(data) as cold:
            async with serving([cold], 255) as [served]:
                faults = [served.start_read(page) for page in range(0, 255, 5)]
                await asyncio.to_thread(cold.wait_for_read, DEADLINE_S)
                cold.release()
                for page, fault in zip(range(0, 255, 5), faults, strict=True):
                    assert await served.result(fault) == [page + 1]

    asyncio.run(scenario())


@needs_root
def test_drain_goes_on_after_a_cold_read() -> None:
    """A drain that waits for its source fills everything once that answers."""

    async def scenario() -> None:
        with Delayed(DATA) as cold:
            async with serving([cold], NR_PAGES) as [served]:
                served.session.drain()
                await asyncio.to_thread(cold.wait_for_read, DEADLINE_S)
                assert served.session.state.nr_missing == NR_PAGES
                cold.release()
                assert await served.wait_for_end() == "drained"
                assert served.session.counters.pages_drain == NR_PAGES
                assert await served.read(0, NR_PAGES) == NUMBERS

    asyncio.run(scenario())


@needs_root
def test_session_whose_read_waits_is_let_go_once_that_ends() -> None:
    """A session that is given up during a cold read ends after it, and not before."""

    async def scenario() -> None:
        with Delayed(DATA) as cold:
            async with serving([cold], NR_PAGES) as [served]:
                served.start_read(0)
                await asyncio.to_thread(cold.wait_for_read, DEADLINE_S)
                # Who is about to look for bytes that have come would do so before all else.
                await asyncio.to_thread(wait_asleep, served.session)
                served.session.request(lib.LPD_REQUEST_DETACH)
                assert served.session.worker is not None
                assert not served.session.worker.pointer.detached
                cold.release()
                await served.wait_for_end()
                assert served.session.counters.pages_fault == 0

    asyncio.run(scenario())


def test_fault_that_meets_a_read_error_is_held() -> None:
    """A page that cannot be read is reported with its place, the ones around it are filled, and
    its thread goes on once the source is mended."""

    async def scenario() -> None:
        with Failing(DATA, bad_pages=[2]) as source:
            async with serving([source], NR_PAGES) as [served]:
                fault = served.start_read(2)
                await served.wait_for_trouble(1)
                assert await served.read(0, 2) == [1, 2]
                assert await served.read(3, NR_PAGES - 3) == NUMBERS[3:]
                assert facts(served.troubles[0]) == (
                    served.toucher.arena + 2 * PAGE,
                    "failing",
                    source.offset + 2 * PAGE,
                    errno.EIO,
                    True,
                )
                assert len(served.troubles) == served.session.counters.held == 1
                assert not served.toucher.has_replied()
                source.mend()
                served.session.retry()
                assert await served.result(fault) == [3]
                assert served.session.counters.held == 0

    asyncio.run(scenario())


def test_retry_before_the_source_is_mended_holds_the_fault_again() -> None:
    """A fault that is tried again too early is reported again, and not lost."""

    async def scenario() -> None:
        with Failing(DATA, bad_pages=[0]) as source:
            async with serving([source], NR_PAGES) as [served]:
                fault = served.start_read(0)
                await served.wait_for_trouble(1)
                served.session.retry()
                await served.wait_for_trouble(2)
                source.mend()
                served.session.retry()
                assert await served.result(fault) == [1]

    asyncio.run(scenario())


BAD_PAGES = [[0], [1], [0, 1, 2], [15], [16], [NR_PAGES - 1], [3, 5, 20, 21, 37]]


@pytest.mark.parametrize("bad_pages", BAD_PAGES)
def test_drain_fills_all_but_the_bad_pages(bad_pages: list[int]) -> None:
    """The drain reports each page that cannot be read, with its own errno, fills every other, and
    those after a retry."""

    async def scenario() -> None:
        with Failing(DATA, bad_pages) as source:
            async with serving([source], NR_PAGES) as [served]:
                served.session.drain()
                await served.wait_for_trouble(len(bad_pages))
                good = [page for page in range(NR_PAGES) if page not in bad_pages]
                reads = [served.start_read(page) for page in good]
                for page, read in zip(good, reads, strict=True):
                    assert await served.result(read) == [page + 1]
                expected = {(source.offset + page * PAGE, errno.EIO, False) for page in bad_pages}
                told = {facts(trouble)[2:] for trouble in served.troubles}
                assert told == expected
                source.mend()
                served.session.retry()
                assert await served.wait_for_end() == "drained"
                assert await served.read(0, NR_PAGES) == NUMBERS

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [0, PAGE, 10 * PAGE + 100, 20 * PAGE - 1])
def test_file_that_became_shorter_is_told_from_zeros(size: int) -> None:
    """A page that the file does not have in full is held with ENODATA, until it has."""

    async def scenario() -> None:
        # No more than can be reported before anybody takes the reports.
        nr_pages, first_bad = 20, size // PAGE
        data, numbers = data_of(nr_pages), list(range(1, nr_pages + 1))
        with Short(data, size) as source:
            async with serving([source], nr_pages) as [served]:
                fault = served.start_read(first_bad)
                await served.wait_for_trouble(1)
                assert facts(served.troubles[0])[2:] == (first_bad * PAGE, errno.ENODATA, True)
                served.session.drain()
                await served.wait_for_trouble(1 + nr_pages - first_bad)
                assert await served.read(0, first_bad) == numbers[:first_bad]
                assert served.session.state.nr_missing == nr_pages - first_bad
                assert not served.toucher.has_replied()
                source.extend()
                served.session.retry()
                assert await served.wait_for_end() == "drained"
                assert await served.result(fault) == [first_bad + 1]
                assert await served.read(0, nr_pages) == numbers

    asyncio.run(scenario())
