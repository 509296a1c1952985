"""Where the daemon's log goes, and how much of it.

Some facts about criu's logs, which tools around it have learned to read:

- The default level is 2.  ``-v`` adds one, ``-vvv`` three, ``-v4`` sets it; at 0 not even errors
  are written.
- From level 3 on, each line begins with the seconds since the start, as in ``(00.029136)``.
- The file is truncated, appended to, and its owner's alone (0600); ``-o -`` is the standard
  output.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from lazypagesd.service import journal
from lazypagesd.service.options import (
    ERRORS_ONLY,
    EVERYTHING,
    INFORMATION,
    WARNINGS,
    DropinOptions,
)

log = logging.getLogger(__name__)

STDOUT_FD = 1
STDERR_FD = 2

LEVELS = {
    ERRORS_ONLY: logging.ERROR,
    WARNINGS: logging.WARNING,
    INFORMATION: logging.INFO,
    EVERYTHING: logging.DEBUG,
}
PREFIXES = {logging.CRITICAL: "Error: ", logging.ERROR: "Error: ", logging.WARNING: "Warn: "}


def start_log(*, verbosity: int, file: str | None = None, anew: bool = True) -> int:
    """Send what lazypagesd logs to *file*, made *anew* or gone on with, or to stderr; return its
    descriptor.

    Where stderr is the journal's, it gets the messages with their fields.

    The log that was open before is closed.  A *file* that cannot be opened raises OSError, and
    leaves that log alone.
    """
    handler = _handler(file, anew=anew)
    if isinstance(handler, _Handler):
        handler.setFormatter(_Formatter(timestamps=verbosity >= INFORMATION))
    logger = logging.getLogger("lazypagesd")
    stop_log()
    logger.addHandler(handler)
    logger.setLevel(level_of(verbosity))
    return handler.fd


def open_log(options: DropinOptions, *, anew: bool = True) -> int:
    """Start the log that *options* ask for, say in it what they warn of; return its descriptor.

    The current directory is the work directory, which the file is relative to.  A log that is not
    *anew* goes on where another daemon has left it, which has said that already.
    """
    fd = start_log(verbosity=options.verbosity, file=options.log_file, anew=anew)
    for warning in options.warnings if anew else ():
        log.warning("%s", warning)
    return fd


def stop_log() -> None:
    """Close the log that start_log() opened; without one, do nothing."""
    logger = logging.getLogger("lazypagesd")
    for handler in list(logger.handlers):
        if isinstance(handler, _Handler | journal.JournalHandler):
            logger.removeHandler(handler)
            handler.close()


def level_of(verbosity: int) -> int:
    """Return logging's level for one of criu's."""
    if verbosity < ERRORS_ONLY:
        return logging.CRITICAL + 1
    return LEVELS[min(verbosity, EVERYTHING)]


class _Handler(logging.StreamHandler[TextIO]):
    """A stream that is closed with its handler when the handler opened it."""

    def __init__(self, stream: TextIO, fd: int, *, owned: bool = False) -> None:
        super().__init__(stream)
        self.fd = fd
        self._owned = owned

    def close(self) -> None:
        if self._owned:
            self.stream.close()
        super().close()


class _Formatter(logging.Formatter):
    def __init__(self, *, timestamps: bool) -> None:
        super().__init__()
        self._timestamps = timestamps

    def format(self, record: logging.LogRecord) -> str:
        since_start_s = record.relativeCreated / 1000
        stamp = f"({since_start_s:09.6f}) " if self._timestamps else ""
        return stamp + PREFIXES.get(record.levelno, "") + super().format(record)


def _handler(file: str | None, *, anew: bool) -> _Handler | journal.JournalHandler:
    if file is None:
        return journal.handler_of(os.environ) or _Handler(sys.stderr, STDERR_FD)
    if file == "-":
        return _Handler(sys.stdout, STDOUT_FD)
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if anew else 0)
    fd = os.open(file, flags, 0o600)
    return _Handler(os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape"), fd, owned=True)
