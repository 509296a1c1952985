"""The page: headline figures, charts and tables, in one file that needs no other."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lazypagesd.client.ctl.tables import total_latency
from lazypagesd.client.ctl.units import count, duration, pages, percent, share, size
from lazypagesd.client.report import charts
from lazypagesd.client.report.model import (
    EVENTS,
    REASONS,
    Range,
    Span,
    WorkingSet,
    events_of,
    growth_of,
    heat_of,
    working_sets,
)
from lazypagesd.client.report.recording import Recording

View = dict[str, Any]

STYLE = Path(__file__).with_name("page.css")
# Of a list that may be long; the whole is in the recording.
ROWS_SHOWN = 200


def page_of(recording: Recording) -> str:
    """Return the report on a recording."""
    restore = recording.restore
    entries = [*recording.faults, *recording.steps]
    span = Span.of(entries, restore["began_usec"])
    sets = working_sets(recording.faults, span)
    parts = [
        head(recording),
        figures(recording, span, sets),
        heat_section(recording, span),
        growth_section(recording, span),
        latency_section(restore["statistics"]),
        working_section(sets, restore["progress"]["nr_pages"]),
        sessions_section(recording.sessions),
        events_section(events_of(recording.steps), span),
        statistics_section(restore["statistics"]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(restore['name'])}</title><style>{STYLE.read_text()}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def head(recording: Recording) -> str:
    """Return what it is about, and what was asked for."""
    restore = recording.restore
    pace = restore["pace"]
    how = f"{size(pace['rate'])}/s" if pace["kind"] == "paced" else pace["kind"]
    lost = (
        f" {recording.nr_lost} older entries are not on record any more: the charts begin late."
        if recording.nr_lost
        else ""
    )
    return (
        f"<h1>{escape(restore['name'])}</h1>"
        f'<p class="faint">{escape(restore["state"].replace("_", " "))}; begun'
        f" {moment(restore['began_usec'])} by user {restore['owner']}; asked to fill at pace"
        f" {escape(how)}; lazypagesd {escape(recording.daemon['version'])}.{lost}</p>"
    )


def figures(recording: Recording, span: Span, sets: Sequence[WorkingSet]) -> str:
    """Return what one wants to know first."""
    restore = recording.restore
    progress, latency = restore["progress"], total_latency(restore["statistics"])
    done = progress["nr_pages"] - progress["nr_missing"]
    first = sets[0]
    told = (
        (pages(progress["nr_pages"]), f"in the image, {percent(done, progress['nr_pages'])} in"),
        (duration((span.end - span.start) * 1000), "from the first entry on record to the last"),
        (f"{restore['statistics']['faults']:,}", "faults"),
        (duration(latency["p50_ns"]), "half of them within"),
        (duration(latency["p99_ns"]), "99 % within"),
        (
            share(first.nr_pages, progress["nr_pages"]),
            f"was asked for in the first {first.seconds:g} s",
        ),
    )
    cells = "".join(f"<div><b>{escape(b)}</b><span>{escape(s)}</span></div>" for b, s in told)
    return f'<div class="figures">{cells}</div>'


def section(title: str, caption: str, body: str) -> str:
    """Return a part with a heading, and how to read it."""
    return f"<h2>{escape(title)}</h2><figure><figcaption>{caption}</figcaption>{body}</figure>"


def key(names: Iterable[str]) -> str:
    """Return what the colours mean."""
    parts = [f'<i class="{escape(name)}"></i>{escape(name)}' for name in names]
    return f'<p class="key">{"".join(parts)}</p>'


def heat_section(recording: Recording, span: Span) -> str:
    """Return where and when pages were asked for."""
    if not recording.faults:
        return section("Faults over time and address", "None is on record.", "")
    heat = heat_of(recording.faults, span)
    caption = "The more faults were in a cell, the more it stands out; addresses ascend"
    caption += " downwards, with the gaps between mappings left out."
    return section("Faults over time and address", caption, charts.heat_map(heat, span))


def growth_section(recording: Recording, span: Span) -> str:
    """Return how it was filled."""
    grown = growth_of(recording.faults, recording.steps, span)
    caption = "Pages that were filled, by the reason for it: asked for, around a fault, in the"
    caption += " background, or with zeros."
    chart = charts.growth_chart(grown, span)
    return section("Filled over time", caption, key(REASONS) + chart)


def latency_section(statistics: View) -> str:
    """Return how long faults took."""
    kinds = [each["kind"] for each in statistics["latencies"] if each["count"]]
    caption = "From a fault being read to its page being in; each bar is up to twice as long as"
    caption += " where it begins."
    chart = charts.histogram(statistics["latencies"])
    return section("Latency", caption, key(kinds) + chart)


def working_section(sets: Sequence[WorkingSet], nr_pages: int) -> str:
    """Return which pages were asked for first."""
    rows = [
        (
            f"{each.seconds:g} s",
            each.nr_pages,
            pages(each.nr_pages),
            share(each.nr_pages, nr_pages),
            len(each.ranges),
        )
        for each in sets
    ]
    body = table(("in the first", "pages", "size", "of the image", "ranges"), rows)
    for each in sets:
        lines = "\n".join(range_text(part) for part in each.ranges[:ROWS_SHOWN])
        more = len(each.ranges) - ROWS_SHOWN
        lines += f"\n… and {more} more" if more > 0 else ""
        body += (
            f"<details><summary>ranges of the first {each.seconds:g} s</summary>"
            f"<pre><code>{lines}</code></pre></details>"
        )
    caption = "Pages that a fault asked for; what was filled unasked may have been used as well."
    return section("Working set", caption, body)


def range_text(part: Range) -> str:
    """Return a range in a line."""
    return f"{part.start:#x}-{part.end:#x} {size(part.size)}"


def sessions_section(sessions: Sequence[View]) -> str:
    """Return the address spaces, children below their parents."""
    rows = [
        (
            "  " * each["id"].count(".") + each["id"],
            each.get("pid", "-"),
            each["state"],
            pages(each["progress"]["nr_pages"]),
            pages(each["progress"]["nr_missing"]),
            each["statistics"]["faults"],
            duration(total_latency(each["statistics"])["p99_ns"]),
        )
        for each in sessions[:ROWS_SHOWN]
    ]
    names = ("session", "pid", "state", "of", "missing", "faults", "p99")
    more = len(sessions) - len(rows)
    caption = f"{count(more, 'session')} more are in the recording." if more else ""
    return section("Sessions", caption, table(names, rows))


def events_section(events: Sequence[View], span: Span) -> str:
    """Return what the processes did meanwhile."""
    rows = [
        (
            duration((each["time_usec"] - span.start) * 1000),
            each["session"],
            each["kind"],
            f"{each['addr']:#x}" if each["len"] else "",
            size(each["len"]) if each["len"] else "",
            f"{each['to_addr']:#x}" if "to_addr" in each else each.get("child", ""),
        )
        for each in events[:ROWS_SHOWN]
    ]
    counts = ", ".join(f"{sum(each['kind'] == kind for each in events)} {kind}" for kind in EVENTS)
    names = ("after", "session", "event", "address", "size", "to")
    return section("Events", f"On record: {counts}.", table(names, rows) if rows else "")


def statistics_section(statistics: View) -> str:
    """Return every number."""
    rows = [(name, value) for name, value in statistics.items() if name != "latencies"]
    return section("All that was counted", "", table(("counted", "number"), rows))


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers stand on the right."""
    found = list(rows)
    kinds = [
        ' class="number"' if found and isinstance(found[0][i], int) else ""
        for i in range(len(names))
    ]
    heads = "".join(f"<th{k}>{escape(n)}</th>" for k, n in zip(kinds, names, strict=True))
    lines = "".join(
        "<tr>"
        + "".join(f"<td{k}>{cell_text(c)}</td>" for k, c in zip(kinds, row, strict=True))
        + "</tr>"
        for row in found
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def cell_text(cell: object) -> str:
    """Return what is in a cell; what indents it stays."""
    text = f"{cell:,}" if isinstance(cell, int) else str(cell)
    indent = len(text) - len(text.lstrip())
    return "&nbsp;" * indent + escape(text.lstrip())


def moment(usec: int) -> str:
    """Return a time of the day, in UTC."""
    when = datetime.datetime.fromtimestamp(usec / 1e6, datetime.UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
