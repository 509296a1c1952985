"""``explain``: why a process waits."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from lazypagesd.client.ctl import process
from lazypagesd.client.ctl.admin import Reply, asking, print_json
from lazypagesd.client.ctl.history import faults_table
from lazypagesd.client.ctl.identify import Target
from lazypagesd.client.ctl.lists import waiting_table
from lazypagesd.client.ctl.tables import console, state_text
from lazypagesd.client.ctl.trouble import UNKNOWN, Trouble
from lazypagesd.client.ctl.units import printable
from lazypagesd.client.varlink import CallFailed, Connection

View = dict[str, Any]
# Threads that are named; of thousands that wait the others are counted.
THREADS_SHOWN = 10


def explain(options: argparse.Namespace) -> int:
    """Ask the daemon, and /proc."""
    target: Target = options.target
    with asking(options) as connection:
        reply = explanation_of(connection, target, options.thread)
    if options.json:
        print_json(reply)
        return 0
    parts = [part for each in reply["explanations"] for part in explanation_page(each)]
    if target.pid is not None:
        parts += threads_lines(process.threads(target.pid))
    console().print(Group(*parts))
    return 0


def explanation_of(connection: Connection, target: Target, tid: int | None) -> Reply:
    """Return what the daemon says of a session or process."""
    try:
        return connection.call("Explain", session=target.session, pid=target.pid, tid=tid)
    except CallFailed as error:
        if error.name != "NoSuchProcess" or target.pid is None:
            raise
    raise unknown_process(connection, target.pid)


def unknown_process(connection: Connection, pid: int) -> Trouble:
    """Return what to say of a process that the daemon does not know: the child of one that it
    does know has its memory served by a session of which only the name tells whose it is."""
    if not process.exists(pid):
        return Trouble(f"process {pid}: there is none", UNKNOWN)
    sessions = connection.call("ListSessions")["sessions"]
    known = {session["pid"]: session for session in sessions if "pid" in session}
    for ancestor in process.ancestors(pid):
        if ancestor in known:
            id = known[ancestor]["id"]
            family = [each["id"] for each in sessions if each["id"].startswith(f"{id}.")]
            ids = ", ".join(family) or "none that is served still"
            return Trouble(
                f"process {pid}: forked by process {ancestor} (session {id}), whose children's"
                f" sessions are: {ids}: explain one of those",
                UNKNOWN,
            )
    return Trouble(f"process {pid}: none of its memory is being served for you", UNKNOWN)


def explanation_page(explanation: View) -> list[RenderableType]:
    """Return what the daemon says."""
    parts: list[RenderableType] = [
        Text.assemble(
            (f"session {explanation['session']}", "bold"), ": ", state_text(explanation["state"])
        ),
        Text(f"because: {printable(explanation['because'])}"),
    ]
    if "advice" in explanation:
        parts.append(Text(f"what to do: {explanation['advice']}"))
    if explanation["waiting"]:
        parts += [Text(""), waiting_table(explanation["waiting"])]
    if explanation["last"]:
        parts += [Text(""), Text("its last faults:"), faults_table(explanation["last"])]
    return parts


def threads_lines(threads: list[process.Thread]) -> list[RenderableType]:
    """Return what the threads wait for, by /proc."""
    if not threads:
        return []
    at_page = [thread for thread in threads if thread.waits_for_page]
    lines = [
        Text(""),
        Text(f"threads that wait for a page, by /proc: {len(at_page)} of {len(threads)}"),
    ]
    for thread in sorted(threads, key=lambda each: not each.waits_for_page)[:THREADS_SHOWN]:
        lines.append(Text(f"  {thread.tid} {thread.name}: {thread.wchan or 'runs'}"))
    return list(lines)
