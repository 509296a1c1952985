"""The journal as a log, with fields that an operator can search and alert by.

    journalctl -u lazypagesd.service RESTORE=3
    journalctl MESSAGE_ID=5625c6fed0434177a769f9798464a905

Some facts (man 5 systemd.exec, man 3 sd_journal_send): where stderr is a stream to the journal,
JOURNAL_STREAM has its device and inode.  A stream is a line an entry and knows no fields; the
library sends them, by a socket that it opens at the first entry and keeps.  So nothing is to be
logged before the descriptors that another daemon has left are in their places.
"""

from __future__ import annotations

import enum
import importlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import cast

STDERR_FD = 2
# Of syslog: errors, warnings, information, everything.
PRIORITIES = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
# What the log calls give as `extra`, under its own name.
FIELDS = ("MESSAGE_ID", "RESTORE", "SESSION")

Send = Callable[..., None]


class MessageId(enum.StrEnum):
    """Events that somebody may want to be woken for; see docs/reference/lazypagesd-service.md."""

    PAGE_UNAVAILABLE = "5625c6fed0434177a769f9798464a905"
    PAGES_LOST = "d195ffa6a7eb4bf6b7127c926c4e021c"
    ORDER_GUESSED = "660b3955844b45108a5e1429ac40b404"
    FORK_DELAYED = "db6c0f040adc4c2a921cb7be4bdf0ab3"
    TAKEN_OVER = "b0786e773a0b4d8cb84b44c477c13ef5"
    BEGUN = "67689afaf5c04bb8a2477deef58a71a1"
    HANDED_OVER = "da0cd0800ab04c02a140d5d61460d037"
    ENDED = "2cd225933b1c491c8b30d3d356f374ca"
    FAILED = "c50259ce16c44c719a7d793b712b972a"
    SESSION_ENDED = "8237b2773e3d444a8fd209108f05a3f9"
    ORDERED = "9578aec49de64e9c8e8638cfc208cb70"


class JournalHandler(logging.Handler):
    """Sends records with their fields."""

    fd = STDERR_FD  # where other output that is to be logged goes

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send *record*; like any handler, fail quietly."""
        try:
            self._send(
                self.format(record),
                PRIORITY=str(PRIORITIES.get(record.levelno, 3)),
                LOGGER=record.name,
                CODE_FILE=record.pathname,
                CODE_LINE=record.lineno,
                CODE_FUNC=record.funcName,
                **fields_of(record),
            )
        except OSError:
            self.handleError(record)


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the fields that *record* was given."""
    return {name: str(getattr(record, name)) for name in FIELDS if hasattr(record, name)}


def handler_of(environment: Mapping[str, str]) -> JournalHandler | None:
    """Return a handler if stderr leads to the journal, and the library is there."""
    status = os.fstat(STDERR_FD)
    if environment.get("JOURNAL_STREAM") != f"{status.st_dev}:{status.st_ino}":
        return None
    try:
        library = importlib.import_module("systemd.journal")
    except ImportError:
        return None
    return JournalHandler(cast(Send, library.send))
