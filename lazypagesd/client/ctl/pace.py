"""Paces and restores, as they are written on a command line."""

from __future__ import annotations

import re

from lazypagesd.client.restore import Pace

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
ENDS = {"eager": Pace.EAGER, "lazy": Pace.LAZY}
MAX_RATE = 2**50  # see Pace in proto/handoff/handoff.proto

# What lazypagesctl prints, as a whole or its number alone.
RESTORE = re.compile(r"(?:restore )?([0-9]{1,19})(?: \(.*\))?")


def parse_pace(text: str) -> Pace:
    """Return what ``eager``, ``lazy`` or bytes a second such as ``64M`` mean; or ValueError."""
    if text in ENDS:
        return ENDS[text]
    if match := re.fullmatch("([0-9]{1,16})([KMG]?)", text):
        rate = int(match[1]) * UNITS[match[2]]
        if 0 < rate <= MAX_RATE:
            return Pace(rate)
    raise ValueError(f"neither eager, nor lazy, nor bytes a second such as 64M ({text!r})")


def parse_restore(text: str) -> int:
    """Return the number of a restore that is called ``1`` or ``restore 1 (criu)``."""
    if match := RESTORE.fullmatch(text):
        return int(match[1])
    raise ValueError(f"no restore is called so: say its number ({text!r})")
