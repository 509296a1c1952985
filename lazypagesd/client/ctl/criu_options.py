"""What may not be among the options that CRIU is given: those that we give it."""

from __future__ import annotations

import re
from collections.abc import Sequence

OURS = ("images-dir", "work-dir", "lazy-pages")
# How much of them is said by no other option of CRIU's.
SHORTEST = 2
# Behind options that take no value, which may share a word.
OURS_SHORT = re.compile("-[SRVcdhjls]*[DW]")


def find_ours(words: Sequence[str]) -> str | None:
    """Return the first of *words* that is an option of ours, also abbreviated."""
    for word in words:
        if word == "--":  # a command of --exec-cmd follows
            return None
        if OURS_SHORT.match(word) or is_ours(word):
            return word
    return None


def is_ours(word: str) -> bool:
    """Say whether *word* is a long option of ours."""
    name = word.removeprefix("--").split("=")[0]
    is_long = word.startswith("--") and len(name) >= SHORTEST
    return is_long and any(option.startswith(name) for option in OURS)
