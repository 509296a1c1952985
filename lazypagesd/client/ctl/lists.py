"""``list`` and ``show``: restores and sessions, as tables and in full."""

from __future__ import annotations

import argparse

from rich.console import Group, RenderableType
from rich.text import Text

from lazypagesd.client.ctl.admin import Reply, asking, print_json
from lazypagesd.client.ctl.identify import Target
from lazypagesd.client.ctl.tables import (
    View,
    console,
    new_table,
    restores_table,
    sessions_table,
    state_text,
)
from lazypagesd.client.ctl.units import duration, printable, size
from lazypagesd.client.varlink import CallFailed, Connection

# Of buckets, the share of the fullest that is a whole bar.
BAR = "#" * 40


def list_(options: argparse.Namespace) -> int:
    """List restores, or the sessions of one."""
    with asking(options) as connection:
        if options.restore is None:
            reply = connection.call("ListRestores", ended=options.ended or None)
            shown = restores_table(reply["restores"])
        else:
            reply = connection.call("ListSessions", restore=options.restore)
            shown = sessions_table(reply["sessions"])
    if options.numbers:
        print(*(view["id"] for view in reply.get("restores", ())), sep="\n")
    elif options.json:
        print_json(reply)
    else:
        console().print(shown)
    return 0


def show(options: argparse.Namespace) -> int:
    """Show one restore or session in full."""
    with asking(options) as connection:
        reply = find(connection, options.target)
    if options.json:
        print_json(reply)
    elif "session" in reply:
        console().print(session_page(reply))
    else:
        console().print(restore_page(reply))
    return 0


def find(connection: Connection, target: Target) -> Reply:
    """Return a restore with its sessions, or a session; a number that is no restore's may be a
    process's."""
    if target.restore is None:
        return connection.call("GetSession", session=target.session, pid=target.pid)
    restores = connection.call("ListRestores", ended=True)["restores"]
    for restore in restores:
        if restore["id"] == target.restore:
            sessions = connection.call("ListSessions", restore=target.restore)["sessions"]
            return {"restore": restore, "sessions": sessions}
    try:
        return connection.call("GetSession", pid=target.restore)
    except CallFailed:
        raise CallFailed("", "NoSuchRestore", {"restore": target.restore}) from None


def restore_page(reply: Reply) -> RenderableType:
    """Return a restore in full."""
    restore = reply["restore"]
    return Group(
        restores_table([restore]),
        Text(""),
        statistics_page(restore["statistics"]),
        Text(""),
        sessions_table(reply["sessions"]),
    )


def session_page(reply: Reply) -> RenderableType:
    """Return a session in full."""
    session = reply["session"]
    sources = new_table("source", "size")
    for source in reply["sources"]:
        sources.add_row(printable(source["name"]), size(source["size"]))
    parts: list[RenderableType] = [sessions_table([session]), Text("")]
    parts += [statistics_page(session["statistics"]), Text(""), sources]
    if reply["threads"]:
        parts += [Text(""), threads_table(reply["threads"])]
    if reply["waiting"]:
        parts += [Text(""), waiting_table(reply["waiting"])]
    return Group(*parts)


def threads_table(threads: list[View]) -> RenderableType:
    """Return what threads have waited for."""
    table = new_table("thread", "faults", "lost")
    for thread in threads:
        name = str(thread["tid"]) if thread["tid"] else "others"
        table.add_row(name, str(thread["faults"]), duration(thread["lost_ns"]))
    return table


def waiting_table(waiting: list[View]) -> RenderableType:
    """Return faults that are not answered yet."""
    table = new_table("page", "waits for", "why", "source")
    for fault in waiting:
        where = f"{printable(fault['source'])} at {fault['offset']}" if "source" in fault else ""
        why = state_text("waiting" if fault["reason"] == "held" else "forking")
        why.plain = f"{fault['reason']}: {fault['error']}" if "error" in fault else fault["reason"]
        table.add_row(f"{fault['addr']:#x}", duration(fault["waited_ns"]), why, where)
    return table


def statistics_page(statistics: View) -> RenderableType:
    """Return every number that is not 0, and a histogram of latencies."""
    numbers = new_table("counted", "number")
    numbers.columns[1].justify = "right"
    for name, value in statistics.items():
        if name != "latencies" and value:
            numbers.add_row(name, str(value))
    return Group(numbers, Text(""), histogram(statistics["latencies"]))


def histogram(latencies: list[View]) -> RenderableType:
    """Return latencies by kind."""
    table = new_table("latency from", *(each["kind"] for each in latencies), "")
    for column in table.columns[1:-1]:
        column.justify = "right"
    rows = list(zip(*(each["buckets"] for each in latencies), strict=True))
    most = max((sum(row) for row in rows), default=0)
    for bucket, row in enumerate(rows):
        if sum(row):
            bar = BAR[: -(-len(BAR) * sum(row) // most)]
            table.add_row(duration(1 << bucket), *map(str, row), bar)
    return table
