"""What people call restores, sessions and processes."""

from __future__ import annotations

import re
from dataclasses import dataclass

RESTORE = re.compile(r"(?:restore )?([0-9]{1,18})(?: \(.*\))?")
SESSION = re.compile(r"(?:restore )?([0-9]{1,18})(?: \(.*\))?/(\S+)")
PROCESS = re.compile(r"pid:([0-9]{1,9})")

EXPECTED = "neither a restore (3), nor a session (3/17), nor a process (pid:4711)"


@dataclass(frozen=True, slots=True)
class Target:
    """What a command is about: one of these."""

    restore: int | None = None
    session: str | None = None
    pid: int | None = None

    def __str__(self) -> str:
        """Name it for people."""
        if self.restore is not None:
            return f"restore {self.restore}"
        return f"session {self.session}" if self.session else f"process {self.pid}"


def parse_target(text: str) -> Target:
    """Return what ``3``, ``restore 3 (criu)``, ``3/17`` or ``pid:4711`` mean; or ValueError."""
    if match := PROCESS.fullmatch(text):
        return Target(pid=int(match[1]))
    if match := SESSION.fullmatch(text):
        return Target(session=f"{match[1]}/{match[2]}")
    if match := RESTORE.fullmatch(text):
        return Target(restore=int(match[1]))
    raise ValueError(f"{EXPECTED} ({text!r})")


def parse_process(text: str) -> Target:
    """Return what is meant where a number alone is a pid; or ValueError."""
    if text.isdecimal() and len(text) < 10:
        return Target(pid=int(text))
    return parse_target(text)


def parse_session(text: str) -> Target:
    """Return a session or a process; or ValueError."""
    if (target := parse_target(text)).restore is None:
        return target
    raise ValueError(f"neither a session (3/17) nor a process (pid:4711) ({text!r})")
