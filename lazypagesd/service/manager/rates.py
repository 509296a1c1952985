"""How fast restores are filled: looked at once a second, so that nobody who asks has to wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from lazypagesd.engine.restore import Restore

INTERVAL_S = 1.0
# Of looks that "of late" goes back.
NR_LOOKS = 6


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a second: in the *last* interval, and *of_late*."""

    last: int
    of_late: int


class Rates:
    """Looks at restores while run() runs."""

    def __init__(self, restores: Callable[[], Collection[Restore]]) -> None:
        """Prepare to look at what *restores* returns."""
        self._restores = restores
        self._looks: dict[int, deque[tuple[int, int]]] = {}

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            self.look()
            await asyncio.sleep(INTERVAL_S)

    def look(self) -> None:
        """Note what each restore has filled so far, and forget those that are no more."""
        now, looks = time.monotonic_ns(), self._looks
        self._looks = {
            restore.number: looks.get(restore.number, deque(maxlen=NR_LOOKS))
            for restore in self._restores()
        }
        for restore in self._restores():
            self._looks[restore.number].append((now, restore.bytes_filled))

    def of(self, restore: Restore) -> Rate | None:
        """Return the rate of a restore; None before there is one."""
        looks = self._looks.get(restore.number)
        if not looks or len(looks) < 2:
            return None
        return Rate(between(looks[-2], looks[-1]), between(looks[0], looks[-1]))


def between(earlier: tuple[int, int], later: tuple[int, int]) -> int:
    """Return the bytes a second from one look to another."""
    return (later[1] - earlier[1]) * 10**9 // max(later[0] - earlier[0], 1)
