"""What there is to be told of, and what of it whom."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from lazypagesd.engine.restore import Restore
from lazypagesd.engine.session import Session
from lazypagesd.engine.statistics import Counters
from lazypagesd.service.admission import Admission, Peer
from lazypagesd.service.manager.errors import no_such_process, no_such_restore, no_such_session
from lazypagesd.service.manager.past import Past, PastRestore
from lazypagesd.service.manager.rates import Rates
from lazypagesd.service.manager.views import session_id
from lazypagesd.service.restores import Restores

# Sessions whose counters are added up before others have their turn.
SESSIONS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, on which connection."""

    peer: Peer

    @classmethod
    def of(cls, connection: socket.socket) -> Caller:
        """Return who has connected."""
        return cls(Peer.of(connection))


@dataclass(slots=True)
class World:
    """The daemon, as those see it who ask."""

    restores: Restores
    admission: Admission
    past: Past
    rates: Rates
    began_usec: int = field(default_factory=lambda: time.time_ns() // 1000)

    def visible(self, caller: Caller) -> list[Restore]:
        """Return the restores that are served and that *caller* may know of."""
        served = self.restores.served
        return [r for r in served if self.admission.may_reach(caller.peer, r.owner)]

    def visible_past(self, caller: Caller) -> list[PastRestore]:
        """Return those that were."""
        return [r for r in self.past if self.admission.may_reach(caller.peer, r.owner)]

    def restore(self, caller: Caller, number: object) -> Restore:
        """Return the restore of that number, or raise NoSuchRestore."""
        for restore in self.visible(caller):
            if restore.number == number:
                return restore
        raise no_such_restore(number)

    def sessions(self, caller: Caller) -> list[tuple[Restore, Session]]:
        """Return every session that is served, with its restore."""
        return [(restore, each) for restore in self.visible(caller) for each in restore.live]

    def session(self, caller: Caller, id: object) -> tuple[Restore, Session]:
        """Return the session of that id, or raise NoSuchSession; one that has ended will do, as
        long as its restore has not."""
        for restore in self.visible(caller):
            for session in restore.sessions:
                if session_id(restore, session) == id:
                    return restore, session
        raise no_such_session(id)

    def session_of_process(self, caller: Caller, pid: object) -> tuple[Restore, Session]:
        """Return the session of that process, or raise NoSuchProcess."""
        for restore, session in self.sessions(caller):
            if session.pid == pid:
                return restore, session
        raise no_such_process(pid)


async def total_of(sessions: Iterable[Session]) -> Counters:
    """Return what *sessions* have counted, without holding anybody up."""
    total, part = Counters.total([]), list[Counters]()
    for session in list(sessions):
        part.append(session.counters)
        if len(part) == SESSIONS_AT_ONCE:
            total, part = Counters.total([total, *part]), []
            await asyncio.sleep(0)
    return Counters.total([total, *part])
