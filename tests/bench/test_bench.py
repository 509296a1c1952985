"""Each case runs, at a size at which its figures mean nothing: every page is looked at."""

from __future__ import annotations

import functools
import importlib.util
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import lazypagesd
from tests.bench.__main__ import PAGE, main, measure
from tests.bench.bench import Bench
from tests.bench.case import Case
from tests.bench.cases import CASES
from tests.bench.charts import draw_all
from tests.bench.handlers import CRIU, BenchError
from tests.bench.layout import Layout
from tests.bench.machine import Machine
from tests.bench.race import Curve, Outcome, Reach, Result, Rival, race
from tests.bench.report import BEGIN, END, HEADS, Measured, Report, write_between
from tests.bench.scenes import UNFINISHED, Touching, unfinished

MARKS = [pytest.mark.criu, pytest.mark.root]


@pytest.fixture(scope="module")
def bench(userfaultfd_allowed: None) -> Iterator[Bench]:
    """A bench for small runs."""
    with Bench(small=True) as bench:
        yield bench


def parameters() -> list[object]:
    """Return each case, with what it needs."""
    return [
        pytest.param(case, id=case.name, marks=MARKS if case.needs_criu else []) for case in CASES
    ]


@pytest.mark.parametrize("case", parameters())
def test_case_runs(bench: Bench, case: Case) -> None:
    """Whoever served, each page was right, and everybody ran in turns."""
    outcome = case.run(bench)
    assert outcome.results or outcome.curves or outcome.notes
    for samples in outcome.samples.values():
        assert samples
        assert all(sample["nr_wrong"] == 0 < sample["nr_touches"] for sample in samples)
    for result in outcome.results:
        assert len(result.ours) == len(result.others) > 0


def test_daemon_is_compiled(bench: Bench) -> None:
    """What is measured starts from byte code, as what pip has installed does."""
    stale = []
    for source in Path(lazypagesd.__file__).parent.rglob("*.py"):
        compiled = Path(importlib.util.cache_from_source(str(source)))
        # The header has the source's time at its third word (PEP 552).
        header = compiled.read_bytes()[8:12] if compiled.exists() else b""
        if header != struct.pack("<I", int(source.stat().st_mtime)):
            stale.append(source.name)
    assert not stale


def test_ratio_is_the_median_of_turns() -> None:
    """A rival runs in so many turns, and each is compared with ours of the same turn."""
    ran: list[str] = []
    ours, theirs = iter([2.0, 30.0, 5.0]), iter([1.0, 10.0])

    def measure(name: str, figures: Iterator[float]) -> dict[str, float]:
        ran.append(name)
        return {"figure": next(figures)}

    outcome = race(
        lambda: measure("ours", ours),
        Rival("quick", lambda: measure("quick", theirs), (Reach("figure", 2.5),), 2),
        Rival("slow", lambda: {"figure": 10.0}, (Reach("figure"),), 3),
    )
    quick, slow = outcome.results
    assert [sorted(ran[:2]), sorted(ran[2:4]), ran[4:]] == [["ours", "quick"]] * 2 + [["ours"]]
    assert (quick.ratio, quick.spread, quick.met) == (2.5, (2.0, 3.0), True)
    assert (slow.ratio, slow.met) == (0.5, None)


def test_nobody_is_always_first() -> None:
    """Who begins a turn is another each time, and so is who is last."""
    ran: list[str] = []

    def measure(name: str) -> dict[str, float]:
        ran.append(name)
        return {"figure": 1.0}

    rivals = [Rival(name, functools.partial(measure, name), (), 20) for name in ("one", "other")]
    race(lambda: measure("ours"), *rivals)
    assert len(ran) == 60
    assert set(ran[::3]) == set(ran[2::3]) == {"ours", "one", "other"}


def test_rival_that_does_not_finish_is_told_of() -> None:
    """Who is given up on counts with the time that was waited, and a note says so."""
    lost = unfinished(3.0)
    outcome = race(lambda: {"total_ns": 1e9}, Rival("criu", lambda: lost, (Reach("total_ns"),), 2))
    assert outcome.results[0].others == (3e9, 3e9)
    assert outcome.notes == (
        "criu had not finished after 3 s in 2 of 2 turns, and counts as if it had then.",
    )


@pytest.mark.criu
@pytest.mark.root
def test_restore_that_takes_too_long_is_given_up(bench: Bench) -> None:
    """Nobody waits for a handler for longer than it may take."""
    sample = bench.dumped(Layout(256)).touch(CRIU, Touching("random"), patience_s=0.0)
    assert sample[UNFINISHED]


def test_figure_that_is_missing_is_no_ratio() -> None:
    """Where a turn had no fault, it does not count; where none had, there is no ratio."""
    reach = Reach("faults_p50_ns", 1.0)
    some = Result("ours", "bare", reach, (math.nan, 2.0), (1.0, 4.0))
    none = Result("ours", "bare", reach, (math.nan,), (1.0,))
    assert (some.ratio, some.met) == (0.5, True)
    assert none.met is False


@pytest.fixture
def report() -> Report:
    """A report of one case."""
    result = Result("ours, twice", "bare", Reach("total_ns", 1.2), (2e6,), (1e6,))
    curve = Curve("size", "MiB", (1.0, 2.0), {"ours": (1.0, 2.0), "criu": (2.0, 4.0)})
    outcome = Outcome((result,), (curve,), {"ours, twice": [{"total_ns": 2e6}]}, ("a note",))
    machine = Machine("a processor", 2, 24.0, "6.18", "3.11", "4.1.1", 0.1)
    return Report(machine, True, [Measured("made-up", "nothing", 0.1, outcome)])


def test_report_is_read_as_it_was_written(tmp_path: Path, report: Report) -> None:
    """The JSON has everything that the tables and charts are made of."""
    report.save(tmp_path / "deep" / "bench.json")
    again = Report.load(tmp_path / "deep" / "bench.json")
    assert again.markdown() == report.markdown()
    assert again.cases[0].outcome.samples == report.cases[0].outcome.samples
    [curve] = again.cases[0].outcome.curves
    assert list(curve.seconds["criu"]) == [2.0, 4.0]


def test_table_is_written_between_the_marker_lines(tmp_path: Path, report: Report) -> None:
    """What stands around it stays, however often that is done."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_between(page, report.markdown())
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\nMeasured on 2 processors")
    assert text.endswith(f"a note\n{END}\nafter\n")
    assert "| made-up: twice | total | 2 ms | bare | 1 ms | 2 |" in text
    assert "old" not in text


def test_page_without_marker_lines_is_left_alone(tmp_path: Path) -> None:
    """Nobody's page is spoiled."""
    page = tmp_path / "page.md"
    page.write_text("no table here\n")
    with pytest.raises(ValueError, match="marker lines"):
        write_between(page, "table")
    assert page.read_text() == "no table here\n"


def test_page_of_the_documentation_has_marker_lines() -> None:
    """That is where ``make bench`` writes."""
    assert PAGE.read_text().index(BEGIN) < PAGE.read_text().index(END)


def test_charts_are_drawn(tmp_path: Path, report: Report) -> None:
    """One of all ratios, and one of how time grows."""
    paths = draw_all(report, tmp_path)
    assert [path.name for path in paths] == ["bench-ratios.svg", "bench-growth.svg"]
    assert all("<svg" in path.read_text() for path in paths)


def test_report_that_was_kept_is_shown_again(
    tmp_path: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is run for it."""
    report.save(tmp_path / "bench.json")
    assert main(["--report", "--json", str(tmp_path / "bench.json")]) == 0
    assert HEADS[0] in capsys.readouterr().out


def test_case_that_fails_leaves_the_others(bench: Bench) -> None:
    """What was measured before and after is kept, and it is said what went wrong."""

    def fail(_bench: Bench) -> Outcome:
        raise BenchError("2 pages are wrong")

    cases = Case("bad", "fails", fail), Case("good", "does not", lambda _bench: Outcome())
    bad, good = measure(cases, bench, Console(quiet=True)).cases
    assert (bad.outcome.failed, bad.outcome.notes) == (True, ("bad: 2 pages are wrong",))
    assert not good.outcome.failed


def test_case_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message has all there are."""
    with pytest.raises(SystemExit):
        main(["made-up"])
    assert "made-up: no such case; there are fragmented" in capsys.readouterr().err
