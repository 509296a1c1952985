"""What is wrong, in the words that people are told, and as exit codes."""

from __future__ import annotations

FAILED = 1
NO_DAEMON = 3
NO_PERMISSION = 4
UNKNOWN = 5


class Trouble(Exception):
    """Something that the command cannot go on after; its text is one line, and *code* what the
    command ends with."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def describe(error: Exception) -> str:
    """Return *error* as ``subject: what was wrong``, in one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def code_of(error: Exception) -> int:
    """Return what the command ends with."""
    return error.code if isinstance(error, Trouble) else FAILED
