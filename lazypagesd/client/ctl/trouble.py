"""What is wrong, in the words that people are told."""

from __future__ import annotations


class Trouble(Exception):
    """Something that the command cannot go on after; its text is one line."""


def describe(error: Exception) -> str:
    """Return *error* as ``subject: what was wrong``, in one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
