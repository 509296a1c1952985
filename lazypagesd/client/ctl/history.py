"""``faults``: what the flight recorder has."""

from __future__ import annotations

import argparse
import datetime

from rich.table import Table

from lazypagesd.client.ctl.admin import asking, print_json, session_of
from lazypagesd.client.ctl.tables import View, console, new_table
from lazypagesd.client.ctl.units import duration


def faults(options: argparse.Namespace) -> int:
    """Show the last faults, or with ``--steps`` what else happened."""
    target = options.target
    method, name = ("GetSteps", "steps") if options.steps else ("GetFaults", "faults")
    with asking(options) as connection:
        session = session_of(connection, target) if target.restore is None else None
        reply = connection.call(
            method, restore=target.restore, session=session, limit=options.limit
        )
    if options.json:
        print_json(reply)
        return 0
    found = reply[name]
    console().print(steps_table(found) if options.steps else faults_table(found))
    return 0


def faults_table(found: list[View]) -> Table:
    """Return faults, a line each."""
    table = new_table("time", "session", "thread", "page", "kind", "outcome", "took", "source")
    table.columns[6].justify = "right"
    for fault in found:
        table.add_row(
            clock(fault["time_usec"]),
            fault["session"],
            str(fault.get("tid", "-")),
            f"{fault['addr']:#x}",
            fault["kind"],
            fault["outcome"],
            duration(fault["latency_ns"]),
            f"{fault['source']} at {fault['offset']}" if "source" in fault else "-",
        )
    return table


def steps_table(found: list[View]) -> Table:
    """Return steps, a line each."""
    table = new_table("time", "session", "what", "from", "to", "child")
    for step in found:
        table.add_row(
            clock(step["time_usec"]),
            step["session"],
            step["kind"],
            f"{step['addr']:#x}+{step['len']:#x}" if step["len"] else "",
            f"{step['to_addr']:#x}" if "to_addr" in step else "",
            step.get("child", ""),
        )
    return table


def clock(usec: int) -> str:
    """Return a moment of the day, by local time."""
    return datetime.datetime.fromtimestamp(usec / 1e6).strftime("%H:%M:%S.%f")
