"""The charts of docs/explanation/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.race import Curve
from tests.bench.report import Report, row

GOOD, BAD, OURS, THEIRS = "#2a7f62", "#c0504d", "#1f4e79", "#b07d2b"


def draw_all(report: Report, directory: Path) -> list[Path]:
    """Draw every chart that the report has figures for, and return where they are."""
    # Here, because it takes a second, and tests of other things import this module, too.
    import matplotlib
    from matplotlib import pyplot

    # The same figures make the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "font.size": 9})
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {
        "bench-ratios.svg": draw_ratios(pyplot, report),
        "bench-growth.svg": draw_growth(pyplot, report),
    }
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths.append(directory / name)
            figure.savefig(paths[-1], bbox_inches="tight", metadata={"Date": None})
            pyplot.close(figure)
    return paths


def draw_ratios(pyplot: Any, report: Report) -> Any:
    """Draw each ratio that has something to reach, as a part of that."""
    found = [
        (" | ".join(row(case.name, result)[i] for i in (0, 1, 3)), result)
        for case in report.cases
        for result in case.outcome.results
        if result.reach.ratio is not None
    ]
    if not found:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 0.3 * len(found) + 1))
    for place, (_, result) in enumerate(reversed(found)):
        assert result.reach.ratio is not None
        low, high = (ratio / result.reach.ratio for ratio in result.spread)
        axes.plot([low, high], [place, place], color="grey", linewidth=1)
        part = result.ratio / result.reach.ratio
        axes.plot(part, place, "o", color=GOOD if result.met else BAD)
    axes.set_yticks(range(len(found)), [name for name, _ in reversed(found)])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("ratio to the rival, as a part of what is to be reached (left of 1: reached)")
    return figure


def draw_growth(pyplot: Any, report: Report) -> Any:
    """Draw every curve, ours and theirs."""
    curves: list[Curve] = [curve for case in report.cases for curve in case.outcome.curves]
    if not curves:
        return None
    figure, all_axes = pyplot.subplots(
        1, len(curves), figsize=(3.2 * len(curves), 3), squeeze=False
    )
    for axes, curve in zip(all_axes[0], curves, strict=True):
        for who, seconds in curve.seconds.items():
            axes.plot(curve.x, seconds, "o-", label=who, color=OURS if who == "ours" else THEIRS)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(curve.x_label)
        axes.set_ylabel("seconds until all is touched")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
        axes.legend()
    figure.tight_layout()
    return figure
