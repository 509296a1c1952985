"""``status``: the daemon and everything that it serves, on one screen."""

from __future__ import annotations

import argparse
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from lazypagesd.client.ctl.admin import Reply, asking, print_json
from lazypagesd.client.ctl.tables import console, restores_tree, total_latency
from lazypagesd.client.ctl.units import count, duration, size

View = dict[str, Any]


def status(options: argparse.Namespace) -> int:
    """Show it."""
    with asking(options) as connection:
        daemon = connection.call("Describe")
        restores = connection.call("ListRestores", ended=options.ended or None)["restores"]
        sessions = connection.call("ListSessions")["sessions"]
    if options.json:
        print_json({"daemon": daemon, "restores": restores, "sessions": sessions})
        return 0
    shown = Group(*daemon_lines(daemon), Text(""), restores_tree(restores, sessions))
    console().print(shown)
    return 0


def daemon_lines(daemon: Reply) -> list[RenderableType]:
    """Return the daemon in a few lines."""
    age_ns = max(time.time_ns() - daemon["began_usec"] * 1000, 0)
    takeovers = daemon["nr_takeovers"]
    head = (
        f"lazypagesd {daemon['version']}, pid {daemon['pid']}, for {duration(age_ns)}"
        + (f", took over from {count(takeovers, 'daemon')} before" if takeovers else "")
        + ("" if "keeper" in daemon else ", without a keeper")
    )
    latency = total_latency(daemon["statistics"])
    progress = daemon["progress"]
    what = (
        f"{count(daemon['nr_restores'], 'restore')}, {count(daemon['nr_sessions'], 'session')},"
        f" {size(progress['rate'])}/s; {count(latency['count'], 'fault')} filled,"
        f" p50 {duration(latency['p50_ns'])}, p99 {duration(latency['p99_ns'])}"
    )
    return [Text(head), Text(what), oldest_line(daemon.get("oldest")), workers_line(daemon)]


def oldest_line(oldest: View | None) -> Text:
    """Return the fault that has waited longest, and where to read on."""
    if oldest is None:
        return Text("no fault waits")
    style = "bold red" if oldest["reason"] == "held" else "yellow"
    return Text(
        f"oldest fault: session {oldest['session']}, page {oldest['addr']:#x}, for"
        f" {duration(oldest['waited_ns'])} ({oldest['reason']}):"
        f" lazypagesctl explain {oldest['session']}",
        style=style,
    )


def workers_line(daemon: Reply) -> Text:
    """Return how busy the workers are."""
    shares = [
        f"{100 * worker['busy_ns'] // max(worker['uptime_ns'], 1)} %"
        f" (longest round {duration(worker['longest_round_ns'])})"
        for worker in daemon["workers"]
    ]
    return Text(f"workers busy: {', '.join(shares)}")
