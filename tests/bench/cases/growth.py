"""How time grows with regions, sessions and size: ours, and criu's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tests.bench.bench import Bench
from tests.bench.case import Case
from tests.bench.handlers import CRIU, OURS
from tests.bench.layout import MIB_PAGES, Layout
from tests.bench.race import Curve, Outcome, Rival, race
from tests.bench.scenes import Sample, Touching

RANDOM = Touching("random")


def grow(
    bench: Bench, name: str, x_label: str, layouts: Sequence[tuple[float, Layout]]
) -> Outcome:
    """Touch each of *layouts* at random, three turns; *x* stands beside each."""
    outcome = Outcome()
    seconds: dict[str, list[float]] = {"ours": [], "criu": []}
    for x, layout in layouts:
        point = touch_both(bench, layout)
        for who, samples in point.samples.items():
            seconds[who].append(median_s(samples))
        named = {f"{who}, {name} {x:g}": samples for who, samples in point.samples.items()}
        outcome += Outcome(samples=named)
    x_values = tuple(x for x, _ in layouts)
    times = {who: tuple(values) for who, values in seconds.items()}
    return outcome + Outcome(curves=(Curve(name, x_label, x_values, times),))


def touch_both(bench: Bench, layout: Layout) -> Outcome:
    """Let ours and criu serve one layout in turns."""
    scene = bench.handed_over(layout)
    return race(
        lambda: scene.touch(OURS, RANDOM),
        Rival("criu", lambda: scene.touch(CRIU, RANDOM), (), bench.pairs(3)),
    )


def median_s(samples: Sequence[Sample]) -> float:
    """Return the median of the total times."""
    return statistics.median(sample["total_ns"] for sample in samples) / 1e9


def growth(bench: Bench) -> Outcome:
    """Each alone, all else being equal."""
    nr_pages = bench.pick(128 * MIB_PAGES, MIB_PAGES)
    regions = bench.pick((1, 32, 1024, 8192, 32768), (1, 16))
    sessions = bench.pick((1, 10, 100, 1000), (10,))
    session_pages = bench.pick(16_000, 160)
    mib = bench.pick((64, 128, 256, 512), (1,))
    return (
        grow(
            bench,
            "regions",
            "regions of together 128 MiB",
            [(n, Layout(nr_pages, run=nr_pages // n)) for n in regions],
        )
        + grow(
            bench,
            "sessions",
            "sessions of together 62.5 MiB",
            [(n, Layout(session_pages, nr_sessions=n)) for n in sessions],
        )
        + grow(bench, "size", "MiB", [(n, Layout(n * MIB_PAGES)) for n in mib])
    )


CASES = (Case("growth", "time against regions, sessions and size", growth, needs_criu=True),)
