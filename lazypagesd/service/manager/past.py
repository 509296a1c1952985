"""The last restores that have ended, as they are told of afterwards."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from lazypagesd.engine.restore import Restore
from lazypagesd.engine.statistics import Counters
from lazypagesd.service.manager.views import View, restore_view, session_id, session_view

NR_RESTORES = 32
# Of all of them: one that had thousands of processes is told of as a whole.
NR_SESSIONS = 1024
# Of one: they are made in one go, when it ends.
NR_SESSIONS_EACH = 128


@dataclass(frozen=True, slots=True)
class PastRestore:
    """One of them: *view* is what is told of it, *sessions* of its sessions, and *ids* what those
    are called, by their numbers in the flight recorder."""

    number: int
    owner: int
    view: View
    sessions: list[View]
    ids: dict[int, str]


class Past:
    """Remembers them."""

    def __init__(self) -> None:
        self._restores: deque[PastRestore] = deque(maxlen=NR_RESTORES)

    def __iter__(self) -> Iterator[PastRestore]:
        """Yield them, the oldest first."""
        return iter(self._restores)

    def add(self, restore: Restore) -> None:
        """Remember one that has ended just now."""
        sessions = restore.sessions[:NR_SESSIONS_EACH]
        total = Counters.total(session.counters for session in restore.sessions)
        view = restore_view(restore, total, None)
        view |= {
            "state": "failed" if restore.failed else "ended",
            "ended_usec": time.time_ns() // 1000,
        }
        self._restores.append(
            PastRestore(
                restore.number,
                restore.owner,
                view,
                [session_view(restore, each, each.counters) for each in sessions],
                {each.id: session_id(restore, each) for each in sessions},
            )
        )
        while sum(len(each.sessions) for each in self._restores) > NR_SESSIONS:
            self._restores.popleft()
