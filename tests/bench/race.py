"""Turns, ratios, and what is to be reached.

Machines are quick at one moment and slow at the next, so nothing is compared but what ran in
turns; a ratio is the median of those of each turn.  Who is first in a turn is drawn anew each
time: memory is where the one before has left it, and a sample that leaves it well for the next,
and ill for the one after that, would otherwise favour somebody all the time.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.bench.scenes import UNFINISHED, Sample

OURS = "ours"

Measure = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Reach:
    """*figure* of ours is to be at most *ratio* times the other's; None: it is only shown."""

    figure: str
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Rival:
    """Who runs beside ours, in the first *nr_pairs* turns."""

    name: str
    measure: Measure
    reaches: tuple[Reach, ...]
    nr_pairs: int


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the table: one figure of *who* of ours, and of a rival's, of each turn."""

    who: str
    other: str
    reach: Reach
    ours: tuple[float, ...]
    others: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ours divided by the other's, of each turn."""
        pairs = zip(self.ours, self.others, strict=True)
        return [a / b for a, b in pairs if math.isfinite(a) and math.isfinite(b) and b > 0]

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios or [math.nan])

    @property
    def spread(self) -> tuple[float, float]:
        """The best and the worst."""
        return min(self.ratios, default=math.nan), max(self.ratios, default=math.nan)

    @property
    def met(self) -> bool | None:
        """Whether what was to be reached is; None where nothing was."""
        return None if self.reach.ratio is None else self.ratio <= self.reach.ratio


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart: *x* against the seconds of everybody, by name."""

    name: str
    x_label: str
    x: tuple[float, ...]
    seconds: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: rows, curves, and each sample, by who ran."""

    results: tuple[Result, ...] = ()
    curves: tuple[Curve, ...] = ()
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failed: bool = False  # as a note says

    def __add__(self, other: Outcome) -> Outcome:
        """Return both."""
        samples = {name: list(taken) for name, taken in self.samples.items()}
        for name, taken in other.samples.items():
            samples.setdefault(name, []).extend(taken)
        return Outcome(
            self.results + other.results,
            self.curves + other.curves,
            samples,
            self.notes + other.notes,
            self.failed or other.failed,
        )


def race(ours: Measure, *rivals: Rival, name: str = OURS) -> Outcome:
    """Let ours, as *name*, and every rival run in turns."""
    everybody = [Rival(name, ours, (), max(rival.nr_pairs for rival in rivals)), *rivals]
    samples: dict[str, list[Sample]] = {each.name: [] for each in everybody}
    draw = random.Random(name)
    for turn in range(everybody[0].nr_pairs):
        present = [each for each in everybody if turn < each.nr_pairs]
        for each in draw.sample(present, len(present)):
            samples[each.name].append(each.measure())
    results = [
        Result(
            name,
            rival.name,
            reach,
            figures(reach.figure, samples[name][: rival.nr_pairs]),
            figures(reach.figure, samples[rival.name]),
        )
        for rival in rivals
        for reach in rival.reaches
    ]
    return Outcome(tuple(results), samples=samples, notes=tuple(notes_on(samples)))


def notes_on(samples: dict[str, list[Sample]]) -> Iterator[str]:
    """Yield what has to be said of those who did not finish."""
    for name, taken in samples.items():
        lost = [sample for sample in taken if UNFINISHED in sample]
        if lost:
            yield (
                f"{name} had not finished after {lost[0]['total_ns'] / 1e9:g} s in {len(lost)} of"
                f" {len(taken)} turns, and counts as if it had then."
            )


def figures(name: str, samples: Sequence[Sample]) -> tuple[float, ...]:
    """Return one figure of each; NaN where there is none, as of faults where none was."""
    return tuple(sample.get(name, math.nan) for sample in samples)


def limit(taken: Sequence[float], figure: str, most: float, name: str = OURS) -> Result:
    """Return a row that compares what was *taken* with a number instead of a rival."""
    row = Reach(figure, 1.0), tuple(taken), tuple(most for _ in taken)
    return Result(name, "limit", *row)
