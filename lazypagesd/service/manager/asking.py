"""What there is, and how it is: Describe, the lists, and one session."""

from __future__ import annotations

import asyncio
import os

from lazypagesd import __version__
from lazypagesd.engine.restore import Restore
from lazypagesd.engine.session import Session
from lazypagesd.service.manager.rates import Rate
from lazypagesd.service.manager.views import (
    View,
    progress_view,
    restore_view,
    session_id,
    session_view,
    statistics_view,
    waiting_view,
    worker_view,
)
from lazypagesd.service.manager.world import SESSIONS_AT_ONCE, Caller, World, total_of
from lazypagesd.service.varlink.errors import invalid_parameter
from lazypagesd.service.varlink.service import Parameters


class Asking:
    """Answers for a world."""

    def __init__(self, world: World) -> None:
        """Prepare to answer for *world*."""
        self._world = world

    async def describe(self, caller: Caller, _parameters: Parameters) -> View:
        """Describe()"""
        visible = self._world.visible(caller)
        total = await total_of(each for restore in visible for each in restore.sessions)
        rates = [rate for each in visible if (rate := self._world.rates.of(each))]
        sum_rate = Rate(sum(r.last for r in rates), sum(r.of_late for r in rates))
        engine = self._world.restores.engine
        keeper = self._world.restores.custody.keeper
        view: View = {
            "version": __version__,
            "pid": os.getpid(),
            "began_usec": self._world.began_usec,
            "nr_restores": len(visible),
            "nr_sessions": sum(len(restore.live) for restore in visible),
            "nr_takeovers": max(each.nr_takeovers for each in engine.recorders),
            "workers": [worker_view(worker.statistics) for worker in engine.workers],
            "progress": progress_view(total, sum_rate),
            "statistics": statistics_view(total),
        }
        oldest = self._oldest(caller)
        optional = {"keeper": keeper.pid if keeper else None, "oldest": oldest}
        return view | {name: value for name, value in optional.items() if value is not None}

    def _oldest(self, caller: Caller) -> View | None:
        waiting = [
            (each.since_ns, session_id(restore, session), each)
            for restore, session in self._world.sessions(caller)
            for each in session.waiting()[:1]
        ]
        if not waiting:
            return None
        _since, id, oldest = min(waiting, key=lambda entry: entry[0])
        return waiting_view(id, oldest)

    async def list_restores(self, caller: Caller, parameters: Parameters) -> View:
        """ListRestores()"""
        views = [await self.view(restore) for restore in self._world.visible(caller)]
        if parameters.get("ended"):
            views = [past.view for past in self._world.visible_past(caller)] + views
        return {"restores": views}

    async def view(self, restore: Restore) -> View:
        """Return a restore that is being served."""
        total = await total_of(restore.sessions)
        return restore_view(restore, total, self._world.rates.of(restore))

    async def list_sessions(self, caller: Caller, parameters: Parameters) -> View:
        """ListSessions()"""
        number = parameters.get("restore")
        for past in self._world.visible_past(caller):
            if past.number == number:
                return {"sessions": past.sessions}
        found = self._world.sessions(caller)
        if number is not None:
            restore = self._world.restore(caller, number)
            found = [(restore, session) for session in restore.sessions]
        views = []
        for restore, session in found:
            views.append(session_view(restore, session, session.counters))
            if len(views) % SESSIONS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return {"sessions": views}

    async def get_session(self, caller: Caller, parameters: Parameters) -> View:
        """GetSession()"""
        restore, session = self.find(caller, parameters)
        id = session_id(restore, session)
        return {
            "session": session_view(restore, session, session.counters),
            "sources": [{"name": s.name, "size": s.size} for s in session.sources],
            "threads": [
                {"tid": loss.tid, "faults": loss.faults, "lost_ns": loss.lost_ns}
                for loss in session.threads
            ],
            "waiting": [waiting_view(id, each) for each in session.waiting()],
        }

    def find(self, caller: Caller, parameters: Parameters) -> tuple[Restore, Session]:
        """Return what either ``session`` or ``pid`` means."""
        id, pid = parameters.get("session"), parameters.get("pid")
        if (id is None) == (pid is None):
            raise invalid_parameter("session")
        if id is not None:
            return self._world.session(caller, id)
        return self._world.session_of_process(caller, pid)
