"""What the log says of restores, and what is printed of them in the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence

from lazypagesd.engine.restore import Restore
from lazypagesd.engine.session import Session
from lazypagesd.engine.statistics import report
from lazypagesd.service.logs import STDOUT_FD

log = logging.getLogger(__name__)

# Of processes in one line of the log.
MAX_NAMES = 20


def name_of(restore: Restore | None) -> str:
    """Say whom a line of the log is about."""
    return restore.name if restore else "a connection"


def names_of(sessions: Sequence[Session]) -> str:
    """Name processes, as many as fit a line."""
    names = [f"process {session.name}" for session in sessions[:MAX_NAMES]]
    more = len(sessions) - len(names)
    return ", ".join([*names, *([f"and {more} more"] if more else [])])


def log_statistics(restore: Restore) -> list[str]:
    """Log what was done for *restore*, as a table; return its lines."""
    prefix = f"{restore.name}/"  # which the heading has
    rows = [(session.name.removeprefix(prefix), session.counters) for session in restore.sessions]
    lines = [f"{restore.name}: statistics", *report(rows)] if rows else []
    for line in lines:
        log.info("%s", line)
    return lines


def write_stdout(text: str) -> None:
    """Write *text*, if anybody still reads it: that they do not is no failure of ours."""
    data = text.encode()
    with contextlib.suppress(OSError):
        # Past sys.stdout, which would try once more when Python ends.
        while data:
            data = data[os.write(STDOUT_FD, data) :]


def log_unexpected(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log what went wrong in a callback, for the daemon's own log and not for asyncio's."""
    error = context.get("exception")
    log.error(
        "%s",
        context["message"],
        exc_info=error if isinstance(error, BaseException) else None,
    )
