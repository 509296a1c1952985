"""What has been measured, as a file that can be read again, and as tables for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from tests.bench.machine import Machine
from tests.bench.race import OURS, Curve, Outcome, Reach, Result

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
HEADS = ("case", "figure", "ours", "beside", "theirs", "ratio", "spread", "reach", "met")


@dataclass(frozen=True, slots=True)
class Measured:
    """A case that was run."""

    name: str
    what: str
    seconds: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Report:
    """Everything of one run."""

    machine: Machine
    small: bool
    cases: list[Measured]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what save() has written."""
        said = json.loads(path.read_text())
        cases = [
            Measured(**{**case, "outcome": outcome_of(case["outcome"])}) for case in said["cases"]
        ]
        return cls(Machine(**said["machine"]), said["small"], cases)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield what stands below HEADS."""
        for case in self.cases:
            for result in case.outcome.results:
                yield row(case.name, result)

    def table(self) -> Table:
        """Return the table for a terminal."""
        table = Table(*HEADS)
        for cells in self.rows():
            table.add_row(*cells)
        return table

    def markdown(self) -> str:
        """Return the table, and the machine, for the documentation."""
        lines = [f"Measured on {self.machine}.", ""]
        lines += [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
        lines += [f"| {' | '.join(cells)} |" for cells in self.rows()]
        for case in self.cases:
            lines += ["", *case.outcome.notes] if case.outcome.notes else []
        return "\n".join(lines)


def outcome_of(said: dict[str, list[dict[str, object]]]) -> Outcome:
    """Return an outcome that was written as JSON."""
    results = [
        Result(**{**each, "reach": Reach(**each["reach"])})  # type: ignore[arg-type]
        for each in said["results"]
    ]
    curves = [Curve(**each) for each in said["curves"]]  # type: ignore[arg-type]
    return Outcome(
        tuple(results),
        tuple(curves),
        said["samples"],  # type: ignore[arg-type]
        tuple(map(str, said["notes"])),
        bool(said["failed"]),
    )


def row(name: str, result: Result) -> tuple[str, ...]:
    """Return a result as HEADS has it."""
    low, high = result.spread
    reach = result.reach.ratio
    return (
        name if result.who == OURS else f"{name}: {result.who.removeprefix(f'{OURS}, ')}",
        result.reach.figure.removesuffix("_ns").replace("_", " "),
        show(result.reach.figure, statistics.median(result.ours)),
        result.other,
        show(result.reach.figure, statistics.median(result.others)),
        f"{result.ratio:.3g}",
        f"{low:.3g} to {high:.3g} of {len(result.ratios)}",
        "" if reach is None else f"{reach:.3g}",
        {True: "yes", False: "no", None: ""}[result.met],
    )


def show(figure: str, value: float) -> str:
    """Return a value with its unit, which is in the figure's name."""
    if figure.endswith("_ns"):
        for size, unit in ((1e9, "s"), (1e6, "ms")):
            if value >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value / 1e3:.3g} us"
    if figure.startswith("bytes"):
        return f"{value / 2**20:.3g} MiB" if value >= 2**20 else f"{value / 2**10:.3g} KiB"
    return f"{value:.3g}"


def write_between(page: Path, text: str) -> None:
    """Replace what stands between the two marker lines of *page*."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{page}: the marker lines are not there ({BEGIN}, {END})")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
