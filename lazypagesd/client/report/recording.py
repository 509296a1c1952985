"""Recordings: from the daemon, and from files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazypagesd.client.varlink import CallFailed, Connection

View = dict[str, Any]

VERSION = 1
PARTS = ("daemon", "restore", "sessions", "faults", "steps", "nr_lost")


class NoRecording(Exception):
    """A file that is none; its text is ``file: what was wrong``."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What is known of a restore; *faults* and *steps* are in the order of their times, and
    *nr_lost* counts older ones that nobody has any more."""

    daemon: View
    restore: View
    sessions: list[View]
    faults: list[View]
    steps: list[View]
    nr_lost: int

    def to_json(self) -> str:
        """Return it as read() takes it."""
        return json.dumps({"version": VERSION, **{name: getattr(self, name) for name in PARTS}})


def record(connection: Connection, number: int) -> Recording:
    """Return all that the daemon knows of the restore of that number, also if it has ended.

    Raises CallFailed with NoSuchRestore if that is nothing.
    """
    restores = connection.call("ListRestores", ended=True)["restores"]
    found = [restore for restore in restores if restore["id"] == number]
    if not found:
        raise CallFailed("", "NoSuchRestore", {"restore": number})
    faults, steps = list[View](), list[View]()
    lost = {"faults": 0, "steps": 0}
    for method, name, into in (("GetFaults", "faults", faults), ("GetSteps", "steps", steps)):
        for reply in connection.stream(method, restore=number):
            into += reply[name]
            lost[name] = reply["nr_lost"]
    return Recording(
        daemon=connection.call("Describe"),
        restore=found[-1],
        sessions=connection.call("ListSessions", restore=number)["sessions"],
        faults=faults,
        steps=steps,
        nr_lost=sum(lost.values()),
    )


def read(path: Path) -> Recording:
    """Return the recording in a file, or raise NoRecording, or OSError."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise NoRecording(f"{path}: is no recording ({error}): {REMEDY}") from None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise NoRecording(f"{path}: is no recording of version {VERSION}: {REMEDY}")
    missing = [name for name in PARTS if name not in found]
    if missing:
        raise NoRecording(f"{path}: is no whole recording ({missing[0]} is missing): {REMEDY}")
    return Recording(**{name: found[name] for name in PARTS})


REMEDY = "make one with `lazypagesctl report ID --json`"
