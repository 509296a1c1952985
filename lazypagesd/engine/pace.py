"""How fast what nobody waits for is filled, and when that is too fast for the machine.

Nothing of the data plane is imported here: command lines are read with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lazypagesd.kernel import pressure

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}

# Far beyond any memory, and far from where C would have to care for overflows.
MAX_RATE = 2**50

# Share of the last ten seconds in which somebody waited for memory, or for a disk.
PRESSURE_PERCENT = 10.0

# Of halvings: a 64th of the rate is next to nothing, and still gets there.
MAX_SLOWDOWN = 6


@dataclass(frozen=True, slots=True)
class Pace:
    """A policy of a restore: *rate* is in bytes a second, or one of the two ends.

    Faults are answered at once whatever it is.
    """

    rate: int

    @classmethod
    def parse(cls, text: str) -> Pace:
        """Return what ``eager``, ``lazy`` or bytes a second such as ``64M`` mean.

        Raises ValueError with the value and what is allowed.
        """
        if text in ENDS:
            return ENDS[text]
        if match := re.fullmatch("([0-9]{1,16})([KMG]?)", text):
            rate = int(match[1]) * UNITS[match[2]]
            if 0 < rate <= MAX_RATE:
                return cls(rate)
        raise ValueError(f"is neither eager, nor lazy, nor bytes a second such as 64M ({text!r})")

    @property
    def is_paced(self) -> bool:
        """Whether it is neither of the two ends."""
        return self not in (EAGER, LAZY)

    def slowed(self, slowdown: int) -> Pace:
        """Return a rate that is halved so many times, and never comes to nothing."""
        return Pace(max(self.rate >> slowdown, 1)) if self.is_paced else self

    def __str__(self) -> str:
        """Say it as parse() would read it."""
        for text, end in ENDS.items():
            if self == end:
                return text
        return str(self.rate)


EAGER = Pace(2**64 - 1)  # as fast as it goes: LPD_DRAIN_EAGER of types.h
LAZY = Pace(0)  # nothing but what is touched: LPD_DRAIN_LAZY
ENDS = {"eager": EAGER, "lazy": LAZY}


class Backoff:
    """Slows paced restores down for as long as the machine suffers.

    Each look at it halves the rates once more, or doubles them again; a drain that is itself what
    keeps the disk busy is no exception.
    """

    def __init__(self, read_pressure: Callable[[], float] = pressure.read_worst) -> None:
        """Prepare to look at what *read_pressure* returns, in percent."""
        self._read_pressure = read_pressure
        self.slowdown = 0

    def look(self) -> bool:
        """Look at the machine; return whether *slowdown*, the number of halvings, has changed."""
        before = self.slowdown
        if self._read_pressure() > PRESSURE_PERCENT:
            self.slowdown = min(before + 1, MAX_SLOWDOWN)
        else:
            self.slowdown = max(before - 1, 0)
        return self.slowdown != before
