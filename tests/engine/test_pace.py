"""Drain as a policy: eager, at a rate, or lazy; what slows a rate down, and who takes turns."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lazypagesd.engine import engine
from lazypagesd.engine.pace import EAGER, LAZY, MAX_RATE, MAX_SLOWDOWN, Backoff, Pace
from lazypagesd.engine.session import End, Session
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.sources.file import FileSource, Kind
from tests.engine.bed import Bed, at, check, check_zero
from tests.support.image import Image
from tests.support.refusal import Refusal
from tests.support.rings import all_of
from tests.support.victim import Victim

if TYPE_CHECKING:
    pass

uffd = pytest.mark.uffd

MIB = 2**20
# At which the first page is due in more than an hour.
HARDLY = Pace(1)


def serve_at(bed: Bed, pace: Pace, nr_pages: int) -> tuple[Victim, Image]:
    """Serve a process at *pace*, released."""
    bed.restore.set_pace(pace)
    return bed.serve([(0, nr_pages)], [(0, nr_pages)], released=True)


def unasked(session: Session) -> int:
    """Return how many pages were filled that nobody had touched."""
    return session.counters.pages_neighbour + session.counters.pages_drain


# ---- lazy ----


@uffd
async def test_lazy_fills_only_what_is_touched(bed: Bed) -> None:
    """No neighbour and no other page comes with those that are read, after the release either."""
    victim, image = serve_at(bed, LAZY, 512)
    for nr_touched, page in enumerate((300, 301, 302, 7, 511), 1):
        await check(victim, image, page)
        await bed.until_counted(pages_fault=nr_touched, nr_missing=512 - nr_touched)
        await bed.until_asleep()
    assert unasked(bed.session) == 0
    assert bed.counters.nr_missing == 507


@uffd
async def test_lazy_takes_nothing_along_from_the_disk(bed: Bed) -> None:
    """A page that had to be read by another thread comes alone, though others came with it."""
    bed.restore.set_pace(LAZY)
    victim, image = bed.victim((0, 64)), bed.image((0, 64))
    with image.path.open("rb") as file:
        source = replace(FileSource.of(file.fileno(), "image"), kind=Kind.BLOCKING)
        bed.attach(victim, image, source=source)
        bed.restore.release()
        for nr_touched, page in enumerate((3, 40, 4), 1):
            await check(victim, image, page)
            await bed.until_counted(pages_fault=nr_touched, nr_missing=64 - nr_touched)
        await bed.until_asleep()
        assert bed.counters.misses == 3
        assert unasked(bed.session) == 0
        bed.engine.abandon(bed.session)
        await bed.until_ended(bed.session, End.ABANDONED)


@uffd
async def test_lazy_session_ends_when_all_has_been_touched(bed: Bed) -> None:
    """It is drained then, as any other."""
    victim, image = serve_at(bed, LAZY, 32)
    await check(victim, image, 0, 32)
    await bed.until_ended(bed.session, End.DRAINED)
    assert bed.counters.pages_fault == 32


@uffd
async def test_lazy_session_lasts_as_long_as_its_process(bed: Bed) -> None:
    """It ends with it, and its restore with both."""
    victim, image = serve_at(bed, LAZY, 32)
    await check(victim, image, 5)
    assert bed.session.end is None
    victim.kill()
    await bed.release(End.GONE)
    assert bed.counters.nr_missing == 31


@uffd
async def test_lazy_answers_what_is_not_in_the_image(bed: Bed) -> None:
    """A page that was discarded is zero, the one beside it right."""
    victim, image = serve_at(bed, LAZY, 32)
    await victim.discard(at(8), 4)
    await check_zero(victim, 8, 4)
    await check(victim, image, 12)


# ---- a change of pace ----


@uffd
@pytest.mark.parametrize("pace", [LAZY, HARDLY], ids=str)
async def test_change_to_eager_takes_effect_at_once(bed: Bed, pace: Pace) -> None:
    """All the rest is filled, by a worker that was asleep."""
    victim, image = serve_at(bed, pace, 600)
    await check(victim, image, 300)
    await bed.until_asleep()
    assert unasked(bed.session) == 0
    bed.restore.set_pace(EAGER)
    await bed.until_ended(bed.session, End.DRAINED)
    await check(victim, image, 0, 600)


@uffd
async def test_change_to_a_higher_rate_takes_effect_at_once(bed: Bed) -> None:
    """The hour that the lower one would have taken is not waited for."""
    victim, image = serve_at(bed, HARDLY, 600)
    await bed.until_asleep()
    bed.restore.set_pace(Pace(1024 * MIB))
    await bed.until_ended(bed.session, End.DRAINED)
    await check(victim, image, 0, 600)


@uffd
async def test_change_to_lazy_stops_the_drain(bed: Bed) -> None:
    """Once the worker has come to rest nothing is filled any more."""
    victim, image = serve_at(bed, Pace(4 * MIB), 8192)
    await bed.until(lambda: bed.counters.pages_drain > 0, "drain")
    bed.restore.set_pace(LAZY)
    await check(victim, image, 8191)
    # The fault was answered after the change had been seen: what is counted now is all.
    before = unasked(bed.session)
    await check(victim, image, 8190)
    assert unasked(bed.session) == before
    assert bed.session.end is None


# ---- a rate ----


@uffd
async def test_rate_is_not_exceeded(bed: Bed) -> None:
    """So long as it has run, no more than that time's worth was filled unasked; it goes on to
    the end."""
    rate = 8 * MIB
    start_ns = time.monotonic_ns()
    victim, image = serve_at(bed, Pace(rate), 1024)
    for nr_pages in 16, 64, 512, 1000:
        # Neighbours count, too.
        await check(victim, image, nr_pages)
        await bed.until(lambda n=nr_pages: unasked(bed.session) >= n, "pages")  # type: ignore[misc]
        filled = unasked(bed.session) * PAGE_SIZE
        assert filled <= rate * (time.monotonic_ns() - start_ns) / 1e9
    await bed.until_ended(bed.session, End.DRAINED)
    await check(victim, image, 0, 1024)


@uffd
async def test_faults_are_never_paced(bed: Bed) -> None:
    """What is touched is there, when the rate would not have allowed a single page."""
    victim, image = serve_at(bed, HARDLY, 256)
    victim.begin_reading(at(0), 64, nr_threads=4, step_pages=64)
    assert await victim.end_reading() == image.bytes(at(0), 256)
    await bed.until_ended(bed.session, End.DRAINED)
    assert bed.counters.pages_fault == 256


@uffd
async def test_worker_sleeps_until_the_rate_allows_more(bed: Bed) -> None:
    """A paced session does not keep the processor busy."""
    victim, image = serve_at(bed, Pace(MIB), 128)
    for page in 100, 50:
        await check(victim, image, page)
        await bed.until_asleep()
    await bed.until_ended(bed.session, End.DRAINED)


@uffd
async def test_paced_session_holds_nobody_up(bed: Bed) -> None:
    """Another session of the same worker is drained meanwhile, and as fast as it goes."""
    serve_at(bed, HARDLY, 64)
    bed.restore.pace = EAGER
    victim, image = bed.serve([(0, 600)], [(0, 600)], released=True)
    await bed.until_ended(bed.roots[1], End.DRAINED)
    await check(victim, image, 0, 600)
    assert unasked(bed.session) == 0


# ---- fork ----


@uffd
@pytest.mark.parametrize("pace", [LAZY, HARDLY], ids=str)
async def test_child_inherits_the_pace(bed: Bed, pace: Pace) -> None:
    """A child is filled as slowly as its parent, and changes its pace with it."""
    victim, image = serve_at(bed, pace, 64)
    child = await victim.fork()
    await check(child, image, 10)
    await bed.until_asleep()
    parent_session, child_session = bed.restore.sessions
    assert child_session.state.pace == pace
    await bed.until_counted(child_session, pages_fault=1, nr_missing=63)
    assert unasked(child_session) == unasked(parent_session) == 0
    await bed.until_asleep()
    bed.restore.set_pace(EAGER)
    await bed.until_ended(parent_session, End.DRAINED)
    await bed.until_ended(child_session, End.DRAINED)
    await check(child, image, 0, 64)


# ---- turns ----


@pytest.fixture
def asked(refusal: Refusal) -> None:
    """Let this process be asked about every fill: so the worker is no faster than the loop that
    watches it.  Comes before the bed."""


@uffd
async def test_small_session_is_not_starved_by_a_large_one(asked: None, bed: Bed) -> None:
    """Sessions take turns: who has little to fill ends while who came first has most of it
    left."""
    nr_large = 4096
    large, large_image = (
        bed.victim((0, 2 * nr_large)),
        bed.image(*((page, 1) for page in range(0, 2 * nr_large, 2))),
    )
    small, small_image = bed.victim((0, 64)), bed.image((0, 64))
    session, watched = bed.attach(large, large_image), bed.attach(small, small_image)
    bed.restore.release()
    await bed.until_ended(watched, End.DRAINED)
    await bed.until_ended(session, End.DRAINED)
    [recorder] = bed.engine.recorders
    filled = all_of(recorder.steps)
    last = max(i for i, step in enumerate(filled) if step.session == watched.id)
    before = sum(step.len for step in filled[:last] if step.session == session.id)
    assert before < nr_large // 2 * PAGE_SIZE
    await check(small, small_image, 0, 64)


# ---- what is said of it ----


@pytest.mark.parametrize(
    ("text", "pace"),
    [
        ("eager", EAGER),
        ("lazy", LAZY),
        ("1", Pace(1)),
        ("4096", Pace(4096)),
        ("16K", Pace(16 * 1024)),
        ("64M", Pace(64 * MIB)),
        ("2G", Pace(2048 * MIB)),
        (str(MAX_RATE), Pace(MAX_RATE)),
    ],
)
def test_pace_is_read(text: str, pace: Pace) -> None:
    """A word, or bytes a second with a unit; and what is said of it can be read again."""
    assert Pace.parse(text) == pace
    assert Pace.parse(str(pace)) == pace


@pytest.mark.parametrize(
    "text",
    ["", "0", "0K", "-1", "fast", "64MB", "64 M", "1.5M", "64m", "٣", "9" * 99, "2000000G"],
)
def test_other_paces_are_refused(text: str) -> None:
    """The message has the value, and what is allowed."""
    with pytest.raises(ValueError, match=r"^is neither eager, nor lazy, nor bytes") as caught:
        Pace.parse(text)
    assert repr(text) in str(caught.value)


# ---- a machine that suffers ----


class Gauge:
    """Pressure as the test would have it."""

    def __init__(self, percent: float) -> None:
        self.percent = percent

    def __call__(self) -> float:
        return self.percent


def test_rates_are_halved_for_as_long_as_the_machine_suffers() -> None:
    """Once more at each look, within bounds; and doubled again afterwards."""
    gauge = Gauge(50.0)
    backoff = Backoff(gauge)
    seen = [backoff.slowdown for _ in range(MAX_SLOWDOWN + 3) if backoff.look()]
    assert seen == list(range(1, MAX_SLOWDOWN + 1))
    gauge.percent = 0.0
    seen = [backoff.slowdown for _ in range(MAX_SLOWDOWN + 3) if backoff.look()]
    assert seen == list(reversed(range(MAX_SLOWDOWN)))


def test_rate_never_comes_to_nothing() -> None:
    """Nor do the two ends change."""
    assert Pace(64).slowed(3) == Pace(8)
    assert Pace(2).slowed(MAX_SLOWDOWN) == Pace(1)
    assert EAGER.slowed(MAX_SLOWDOWN) == EAGER
    assert LAZY.slowed(MAX_SLOWDOWN) == LAZY


@uffd
async def test_paced_sessions_are_slowed_down_under_pressure(
    monkeypatch: pytest.MonkeyPatch, bed: Bed
) -> None:
    """Those that are there, and those that come; what they were asked for stays as it is, and is
    theirs again when the pressure is gone."""
    gauge = Gauge(99.0)
    bed.engine.backoff = Backoff(gauge)
    monkeypatch.setattr(engine, "PROBE_INTERVAL_S", 0.01)
    pace = Pace(64)
    serve_at(bed, pace, 64)
    slowest = pace.slowed(MAX_SLOWDOWN).rate
    await bed.until(lambda: bed.session.state.pointer.drain_rate == slowest, "the lowest rate")
    bed.serve([(0, 64)], [(0, 64)], released=True)
    assert bed.roots[1].state.pointer.drain_rate == slowest
    assert {session.state.pace for session in bed.roots} == {pace}
    gauge.percent = 0.0
    for session in bed.roots:
        await bed.until(
            lambda one=session: one.state.pointer.drain_rate == pace.rate,  # type: ignore[misc]
            "the full rate",
        )


@uffd
async def test_eager_and_lazy_mind_no_pressure(bed: Bed) -> None:
    """Who is not paced is not asked about."""

    def never() -> float:
        raise AssertionError("pressure was looked at")

    bed.engine.backoff = Backoff(never)
    serve_at(bed, LAZY, 64)
    bed.engine._back_off()
    assert bed.session.state.pointer.drain_rate == LAZY.rate
