"""Charts, as SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lazypagesd.client.ctl.units import duration
from lazypagesd.client.report.model import COLUMNS, REASONS, ROWS, Heat, Span

View = dict[str, Any]

WIDTH, LEFT, RIGHT = 960, 150, 12
PLOT = WIDTH - LEFT - RIGHT
# Shades of a cell, by powers of two of its faults.
NR_SHADES = 6


def svg(height: int, label: str, parts: Sequence[str], kind: str) -> str:
    """Return a picture of so many points."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, what: str, anchor: str = "start") -> str:
    """Return a label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(what)}</text>'


def time_axis(span: Span, y: float) -> list[str]:
    """Return the time from the first entry on, at five places."""
    parts = [f'<line class="axis" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>']
    for i in range(6):
        x = LEFT + PLOT * i / 5
        passed_ns = (span.end - span.start) * 1000 * i // 5
        anchor = "start" if i == 0 else "end" if i == 5 else "middle"
        parts.append(text(x, y + 16, duration(passed_ns) if i else "0", anchor))
    return parts


def heat_map(heat: Heat, span: Span) -> str:
    """Return faults over time and address; the addresses ascend downwards."""
    cell_width, cell_height = PLOT / COLUMNS, 4
    bottom = ROWS * cell_height
    parts = [f'<rect class="ground" x="{LEFT}" y="0" width="{PLOT}" height="{bottom}"/>']
    by_shade: dict[int, list[str]] = {}
    for (column, row), count in heat.cells.items():
        shade = min(count.bit_length(), NR_SHADES)
        x, y = LEFT + column * cell_width, row * cell_height
        path = f"M{x:.1f} {y}h{cell_width:.1f}v{cell_height}h-{cell_width:.1f}z"
        by_shade.setdefault(shade, []).append(path)
    for shade, paths in sorted(by_shade.items()):
        parts.append(f'<path class="heat{shade}" d="{"".join(paths)}"/>')
    last = -20
    for row, each in heat.first_rows():
        y = row * cell_height
        if row:
            parts.append(
                f'<line class="rule" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>'
            )
        # Where many are close to each other the first of them is named.
        if y - last >= 13:
            parts.append(text(LEFT - 6, y + 10, f"{each.start:#x}", "end"))
            last = y
    parts += time_axis(span, bottom)
    return svg(bottom + 24, "faults over time and address", parts, "heat")


def growth_chart(grown: Mapping[str, Sequence[int]], span: Span) -> str:
    """Return how many pages were in, by reason, one upon the other."""
    height = 220
    most = max(sum(grown[reason][-1] for reason in REASONS), 1)
    parts = []
    below = [0] * COLUMNS
    for reason in REASONS:
        above = [low + count for low, count in zip(below, grown[reason], strict=True)]
        forth = [point(i, each, most, height) for i, each in enumerate(above)]
        back = [point(i, each, most, height) for i, each in reversed(list(enumerate(below)))]
        parts.append(f'<path class="{reason}" d="M{"L".join(forth + back)}z"/>')
        below = above
    parts += [text(LEFT - 6, 10, f"{most} pages", "end"), text(LEFT - 6, height, "0", "end")]
    parts += time_axis(span, height)
    return svg(height + 24, "pages filled over time, by reason", parts, "growth")


def point(column: int, value: int, most: int, height: int) -> str:
    """Return where a value is."""
    x = LEFT + PLOT * column / max(COLUMNS - 1, 1)
    return f"{x:.1f} {height - height * value / most:.1f}"


def histogram(latencies: Sequence[View]) -> str:
    """Return latencies by kind, one upon the other."""
    kinds = [each for each in latencies if each["count"]]
    sums = [sum(column) for column in zip(*(each["buckets"] for each in kinds), strict=True)]
    used = [i for i, count in enumerate(sums) if count]
    if not used:
        return "<p>No fault was filled.</p>"
    buckets = range(used[0], used[-1] + 1)
    height, step = 200, PLOT / len(buckets)
    most = max(sums) * 1.1  # so that there is room for a number above
    parts = []
    for place, i in enumerate(buckets):
        x, y = LEFT + place * step, float(height)
        for each in kinds:
            tall = height * each["buckets"][i] / most
            y -= tall
            parts.append(bar(each["kind"], x + 1, y, step - 2, tall))
        if sums[i]:
            parts.append(text(x + step / 2, y - 3, str(sums[i]), "middle"))
        parts.append(text(x, height + 16, duration(1 << i)))
    parts.append(text(LEFT - 6, 10, "faults", "end"))
    return svg(height + 24, "latencies by kind", parts, "histogram")


def bar(kind: str, x: float, y: float, width: float, height: float) -> str:
    """Return a bar, of a kind of fault."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{escape(kind)}" {place}/>'
