"""Memory that the process may not have: a fill that gets ENOMEM is tried until it succeeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

from lazypagesd.engine.session import End
from lazypagesd.images.mm import PAGE_SIZE
from tests.engine.bed import Bed, at, check
from tests.support.image import wrong_pages
from tests.support.memory_cgroup import MemoryCgroup, is_there
from tests.support.refusal import Refusal
from tests.support.victim import Victim

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.uffd

# Attempts by which it is plain that the worker goes on trying.
MANY = 20


class Limit(Protocol):
    """A way to keep memory from a process."""

    def set_in(self, victim: Victim) -> None:
        """Refuse it every page; it is not to be spoken to until lift()."""

    def lift(self) -> None:
        """Let it have all that it wants."""


class Injected:
    """The worker's fills are refused, whoever they are for: zero pages as well."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def set_in(self, victim: Victim) -> None:
        self._refusal.set_in()

    def lift(self) -> None:
        self._refusal.lift()


class Charged:
    """The process's memory cgroup is full; zero pages are charged to nobody."""

    def __init__(self, cgroup: MemoryCgroup) -> None:
        self._cgroup = cgroup

    def set_in(self, victim: Victim) -> None:
        self._cgroup.limit(0)
        self._cgroup.admit(victim.pid)

    def lift(self) -> None:
        self._cgroup.limit(-1)


@pytest.fixture
def injected(refusal: Refusal) -> Limit:
    """Let fills be refused on their way into the kernel.  Comes before the bed."""
    return Injected(refusal)


@pytest.fixture
def charged() -> Iterator[Limit]:
    """Make a memory cgroup."""
    with MemoryCgroup() as cgroup:
        yield Charged(cgroup)


# A full cgroup is what it is about, but few machines still have those of the first version, and in
# the second one it ends in a kill; so that comes on top, where it can be had.
@pytest.fixture(params=["injected", "charged"] if is_there() else ["injected"])
def limit(request: pytest.FixtureRequest) -> Limit:
    """Return one way after the other."""
    way: Limit = request.getfixturevalue(request.param)
    return way


async def until_tried(bed: Bed) -> None:
    """Wait until the worker has been refused many times since."""
    before = bed.counters.retries
    await bed.until(lambda: bed.counters.retries >= before + MANY, "attempts")


async def test_faults_wait_for_memory(limit: Limit, bed: Bed) -> None:
    """Threads at pages that there is no memory for wait, and read them when there is; also before
    the restore has finished, when nothing else is to be done."""
    victim, image = bed.victim((0, 16)), bed.image((0, 16))
    fd = victim.hand_over()
    victim.begin_reading(at(0), nr_threads=16, step_pages=1)
    await bed.until_waiting(fd, 16)
    limit.set_in(victim)
    bed.attach(victim, image, fd=fd)
    await until_tried(bed)
    assert bed.counters.nr_missing == 16
    limit.lift()
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 16)) == []
    await bed.until_counted(nr_missing=0, pages_dropped=0, held=0)


async def test_worker_sleeps_between_attempts(injected: Limit, bed: Bed) -> None:
    """While there is no memory the worker takes no processor from whoever could free some."""
    victim, image = bed.victim((0, 16)), bed.image((0, 16))
    fd = victim.hand_over()
    victim.begin_reading(at(0))
    await bed.until_waiting(fd)
    injected.set_in(victim)
    bed.attach(victim, image, fd=fd)
    for _ in range(MANY):
        await until_tried(bed)
        await bed.until_asleep()
    injected.lift()
    assert wrong_pages(await victim.end_reading(), image.bytes(at(0), 1)) == []


async def test_drain_waits_for_memory(limit: Limit, bed: Bed) -> None:
    """The drain does not go past pages that there is no memory for, and fills all of them when
    there is."""
    victim, image = bed.victim((0, 2000)), bed.image((0, 900), (1000, 1000))
    fd = victim.hand_over()
    limit.set_in(victim)
    bed.attach(victim, image, fd=fd)
    bed.restore.release()
    await until_tried(bed)
    assert bed.counters.nr_missing == 1900
    limit.lift()
    await bed.until_ended(bed.session, End.DRAINED)
    assert bed.counters.pages_drain == 1900
    await check(victim, image, 0, 2000)


async def test_fault_after_everything_is_in_waits_for_memory(injected: Limit, bed: Bed) -> None:
    """Nor is a zero page given up, for which nothing but the fault itself keeps the worker up."""
    victim = bed.victim((0, 8))
    fd = victim.hand_over()
    victim.begin_reading(at(0), nr_threads=8, step_pages=1)
    await bed.until_waiting(fd, 8)
    injected.set_in(victim)
    bed.attach(victim, bed.image(), fd=fd)
    await until_tried(bed)
    injected.lift()
    assert wrong_pages(await victim.end_reading(), bytes(8 * PAGE_SIZE)) == []
    await bed.until_counted(pages_zero=8)
