"""Restores and sessions as tables, and as a tree: on a terminal with colours and bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from lazypagesd.client.ctl.units import count, duration, pages, percent, size

View = dict[str, Any]

STYLES = {
    "handing_over": "cyan",
    "filling": "green",
    "serving": "green",
    "paused": "yellow",
    "forking": "yellow",
    "waiting": "bold red",
    "failed": "red",
    "abandoned": "red",
}
BAR_WIDTH = 16
# Of a console that is no terminal, where nobody wants lines to be cut.
PLAIN_WIDTH = 200
RIGHT = {
    "pid",
    "filled",
    "of",
    "missing",
    "rate",
    "p50",
    "p99",
    "max",
    "end",
    "faults",
    "sessions",
}


def console() -> Console:
    """Return the console that stdout is."""
    # No markup: names are somebody else's.
    found = Console(highlight=False, markup=False)
    if found.is_terminal:
        return found
    return Console(highlight=False, markup=False, width=PLAIN_WIDTH)


def state_text(state: str) -> Text:
    """Return a state, coloured by how well it is."""
    return Text(state.replace("_", " "), style=STYLES.get(state, ""))


def pace_text(pace: View) -> str:
    """Return a pace."""
    return f"{size(pace['rate'])}/s" if pace["kind"] == "paced" else str(pace["kind"])


def end_text(progress: View) -> str:
    """Return when all will be in."""
    if progress["nr_missing"] == 0:
        return "all in"
    end_in_ns = progress.get("end_in_ns")
    return "-" if end_in_ns is None else duration(end_in_ns)


def total_latency(statistics: View) -> View:
    """Return the latency of faults of all kinds, as one."""
    kinds = statistics["latencies"]
    buckets = [sum(column) for column in zip(*(each["buckets"] for each in kinds), strict=True)]
    longest = max(each["max_ns"] for each in kinds)
    return {
        "count": sum(each["count"] for each in kinds),
        "max_ns": longest,
        "p50_ns": percentile_ns(buckets, longest, 0.50),
        "p99_ns": percentile_ns(buckets, longest, 0.99),
    }


def percentile_ns(buckets: Sequence[int], longest: int, share: float) -> int:
    """Return the end of the bucket that *share* of all have been counted by."""
    wanted, seen = share * sum(buckets), 0
    for bucket, number in enumerate(buckets):
        seen += number
        if number and seen >= wanted:
            return min(2 << bucket, longest)
    return 0


def bar(progress: View) -> RenderableType:
    """Return how much is in, as a bar."""
    done = progress["nr_pages"] - progress["nr_missing"]
    return ProgressBar(total=max(progress["nr_pages"], 1), completed=done, width=BAR_WIDTH)


def cells_of(view: View) -> list[str]:
    """Return what a restore and a session have in common: share, sizes, rate, latencies, end."""
    progress, latency = view["progress"], total_latency(view["statistics"])
    nr_pages, nr_missing = progress["nr_pages"], progress["nr_missing"]
    return [
        percent(nr_pages - nr_missing, nr_pages),
        pages(nr_pages),
        pages(nr_missing),
        str(view["statistics"]["faults"]),
        duration(latency["p50_ns"]),
        duration(latency["p99_ns"]),
        duration(latency["max_ns"]),
    ]


COMMON = ("filled", "of", "missing", "faults", "p50", "p99", "max")


def restores_table(restores: Iterable[View], *, selected: int | None = None) -> Table:
    """Return restores, a line each; the one *selected* by number is marked."""
    table = new_table("restore", "state", "pace", "sessions", *COMMON, "rate", "end")
    for view in restores:
        table.add_row(
            Text(view["name"]),
            state_text(view["state"]),
            pace_text(view["pace"]),
            f"{view['nr_live']}/{view['nr_sessions']}",
            *cells_of(view),
            f"{size(view['progress']['rate'])}/s",
            end_text(view["progress"]),
            style="reverse" if view["id"] == selected else "",
        )
    return table


def sessions_table(sessions: Iterable[View]) -> Table:
    """Return sessions, a line each."""
    table = new_table("session", "pid", "state", *COMMON)
    for view in sessions:
        pid = str(view.get("pid", "-"))
        table.add_row(view["id"], pid, state_text(view["state"]), *cells_of(view))
    return table


def new_table(*columns: str) -> Table:
    """Return a table that looks as all do."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name in RIGHT else "left", no_wrap=True)
    return table


def restores_tree(restores: Sequence[View], sessions: Iterable[View]) -> RenderableType:
    """Return restores, each with its sessions below it."""
    if not restores:
        return Text("nothing is being restored")
    by_restore: dict[int, list[View]] = {}
    for session in sessions:
        by_restore.setdefault(session["restore"], []).append(session)
    return Group(*(tree_of(view, by_restore.get(view["id"], [])) for view in restores))


# A restore of thousands of processes would fill screens.
SESSIONS_SHOWN = 8


def tree_of(view: View, sessions: Sequence[View]) -> Tree:
    """Return one restore with its sessions."""
    tree = Tree(restore_line(view), guide_style="dim")
    for session in sessions[:SESSIONS_SHOWN]:
        tree.add(session_line(session))
    if len(sessions) > SESSIONS_SHOWN:
        more = len(sessions) - SESSIONS_SHOWN
        tree.add(Text(f"and {count(more, 'session')} more: lazypagesctl list {view['id']}"))
    return tree


def restore_line(view: View) -> RenderableType:
    """Return a restore in a line."""
    progress, latency = view["progress"], total_latency(view["statistics"])
    done = progress["nr_pages"] - progress["nr_missing"]
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_row(
        Text(view["name"], style="bold"),
        state_text(view["state"]),
        bar(progress),
        Text(f"{percent(done, progress['nr_pages'])} of {pages(progress['nr_pages'])}"),
        Text(f"{size(progress['rate'])}/s"),
        Text(f"p50 {duration(latency['p50_ns'])}  p99 {duration(latency['p99_ns'])}"),
        Text(end_text(progress)),
    )
    return line


def session_line(view: View) -> Text:
    """Return a session in a line."""
    progress = view["progress"]
    done = progress["nr_pages"] - progress["nr_missing"]
    pid = f" (pid {view['pid']})" if "pid" in view else ""
    return Text.assemble(
        f"{view['id']}{pid}  ",
        state_text(view["state"]),
        f"  {percent(done, progress['nr_pages'])} of {pages(progress['nr_pages'])}"
        f"  {count(view['statistics']['faults'], 'fault')}",
    )
