"""Many sessions, and many regions."""

from __future__ import annotations

import statistics

from tests.bench.bench import Bench
from tests.bench.case import Case
from tests.bench.handlers import OURS, OURS_LAZY, Serving
from tests.bench.layout import MIB_PAGES, Layout
from tests.bench.race import Outcome, Reach, Rival, limit, race
from tests.bench.scenes import Sample, Touching

SESSION_BYTES = 64 << 10
ALL_BYTES = 40 << 20
READY_NS = 300_000_000


def memory_used(serving: Serving) -> Sample:
    """Measure the daemon's memory while its sessions are there."""
    return {"pss": serving.pss()}


def sessions_1000(bench: Bench) -> Outcome:
    """A thousand sessions of 1 MiB, and one of the same bytes; two threads touch all of it."""
    nr_sessions = bench.pick(1000, 20)
    layout = Layout(nr_sessions * MIB_PAGES, nr_sessions=nr_sessions)
    many = bench.handed_over(layout)
    single = bench.handed_over(Layout(layout.nr_pages))
    touching = Touching("random", nr_threads=2)
    return memory(bench, layout) + race(
        lambda: many.touch(OURS, touching),
        Rival(
            "one session",
            lambda: single.touch(OURS, touching),
            (Reach("total_ns", 1.3),),
            bench.pairs(),
        ),
        name=f"{nr_sessions} sessions",
    )


def memory(bench: Bench, layout: Layout) -> Outcome:
    """Measure what a session costs, half of which has been touched: and what there is besides."""
    half = Touching("random", nr_touches=layout.nr_pages // 2)
    one = Layout(MIB_PAGES)
    name = f"{layout.nr_sessions} sessions, half touched"
    taken = race(
        lambda: bench.handed_over(layout).touch(OURS_LAZY, half, look=memory_used),
        Rival(
            "one session, half touched",
            lambda: bench.handed_over(one).touch(
                OURS_LAZY, Touching("random", nr_touches=MIB_PAGES // 2), look=memory_used
            ),
            (),
            bench.pairs(3),
        ),
        name=name,
    )
    single = [sample["pss"] for sample in taken.samples["one session, half touched"]]
    base = statistics.median(single)
    each = [(sample["pss"] - base) / (layout.nr_sessions - 1) for sample in taken.samples[name]]
    rows = (
        limit(each, "bytes a session", SESSION_BYTES, name),
        limit(single, "bytes besides", ALL_BYTES),
    )
    return taken + Outcome(rows)


def regions_1m(bench: Bench) -> Outcome:
    """A million regions of one page, and ten of the same number of pages."""
    nr_pages, nr_touches = bench.pick((1_000_000, 50_000), (1_000, 100))
    scattered = Layout(nr_pages, run=1, nr_written=nr_touches)
    gathered = Layout(nr_pages, run=nr_pages // 10, nr_written=nr_touches)
    touching = Touching("random", nr_touches=nr_touches)
    name = f"{nr_pages} regions"
    outcome = race(
        lambda: bench.handed_over(scattered).touch(OURS_LAZY, touching),
        Rival(
            "10 regions",
            lambda: bench.handed_over(gathered).touch(OURS_LAZY, touching),
            (Reach("faults_p50_ns", 1.15), Reach("faults_mean_ns", 1.15)),
            bench.pairs(),
        ),
        name=name,
    )
    ready = [sample["ready_ns"] for sample in outcome.samples[name]]
    return Outcome((limit(ready, "ready_ns", READY_NS, name),)) + outcome


CASES = (
    Case("sessions-1000", "1,000 sessions of 1 MiB", sessions_1000),
    Case("regions-1M", "one session of 1,000,000 regions", regions_1m),
)
