"""Measure the daemon beside others: every case, or those that are named."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from tests.bench.bench import REPOSITORY, Bench
from tests.bench.case import Case
from tests.bench.cases import CASES
from tests.bench.charts import draw_all
from tests.bench.handlers import BenchError
from tests.bench.machine import Machine
from tests.bench.race import Outcome
from tests.bench.report import Measured, Report, write_between

RESULTS = REPOSITORY / ".build/bench.json"
PAGE = REPOSITORY / "docs/explanation/performance.md"
IMAGES = REPOSITORY / "docs/images"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog="Cases: " + "; ".join(f"{case.name} ({case.what})" for case in CASES) + ".",
    )
    add = parser.add_argument
    names = [case.name for case in CASES]
    add("cases", nargs="*", metavar="CASE", help="all by default")
    add("--size", choices=("full", "small"), default="full", help="small: see that it works")
    add("--pairs", type=int, default=1000, help="at most so many turns, to be done soon")
    add("--json", type=Path, default=RESULTS, help="where every figure goes (%(default)s)")
    add("--charts", action="store_true", help="draw charts and write the table into docs/")
    add("--report", action="store_true", help="run nothing: take the figures of --json")
    options = parser.parse_args(arguments)
    if unknown := set(options.cases) - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: no such case; there are {', '.join(names)}")
    return options


def measure(cases: Iterable[Case], bench: Bench, console: Console) -> Report:
    """Run *cases*, and say what each was."""
    report = Report(Machine.this(bench.criu), bench.small, [])
    for case in cases:
        console.print(f"{case.name}: {case.what} ...")
        start_s = time.monotonic()
        try:
            outcome = case.run(bench)
        except BenchError as error:
            # The others are worth their minutes.
            outcome = Outcome(notes=(f"{case.name}: {error}",), failed=True)
        seconds = time.monotonic() - start_s
        for note in outcome.notes:
            console.print(note)
        report.cases.append(Measured(case.name, case.what, round(seconds, 1), outcome))
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; return 1 if one could not be, whatever was measured."""
    options = parse(arguments)
    console = Console()
    if options.report:
        report = Report.load(options.json)
    else:
        chosen = [case for case in CASES if not options.cases or case.name in options.cases]
        with Bench(small=options.size == "small", most_pairs=options.pairs) as bench:
            report = measure(chosen, bench, console)
        report.save(options.json)
    console.print(str(report.machine))
    console.print(report.table())
    console.print(f"{sum(case.seconds for case in report.cases):.0f} s; figures: {options.json}")
    if options.charts:
        drawn = draw_all(report, IMAGES)
        links = [f"![{path.stem}](../images/{path.name})" for path in drawn]
        write_between(PAGE, "\n\n".join([report.markdown(), *links]))
    return int(any(case.outcome.failed for case in report.cases))


if __name__ == "__main__":
    sys.exit(main())
