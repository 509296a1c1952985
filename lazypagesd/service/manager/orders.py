"""What the daemon can be told to do."""

from __future__ import annotations

import logging

from lazypagesd.engine.pace import EAGER, LAZY, MAX_RATE, Pace
from lazypagesd.engine.restore import Restore
from lazypagesd.service.journal import MessageId
from lazypagesd.service.manager.errors import pages_missing
from lazypagesd.service.manager.views import View, session_id
from lazypagesd.service.manager.world import Caller, World
from lazypagesd.service.varlink.errors import invalid_parameter
from lazypagesd.service.varlink.service import Parameters

log = logging.getLogger(__name__)


class Orders:
    """Carries them out, in a world."""

    def __init__(self, world: World) -> None:
        """Prepare to do so in *world*."""
        self._world = world

    async def set_policy(self, caller: Caller, parameters: Parameters) -> View:
        """SetPolicy()"""
        restore = self._world.restore(caller, parameters["restore"])
        pace = pace_of(parameters["pace"])
        restore.set_pace(pace)
        tell(restore, caller, f"its pace is {pace}")
        return {}

    async def pause(self, caller: Caller, parameters: Parameters) -> View:
        """Pause()"""
        restore = self._world.restore(caller, parameters["restore"])
        restore.pause()
        tell(restore, caller, "paused")
        return {}

    async def resume(self, caller: Caller, parameters: Parameters) -> View:
        """Resume()"""
        restore = self._world.restore(caller, parameters["restore"])
        restore.resume()
        tell(restore, caller, "resumed")
        return {}

    async def detach(self, caller: Caller, parameters: Parameters) -> View:
        """Detach()"""
        restore, session = self._world.session(caller, parameters["session"])
        if session.final is None:
            nr_missing = session.state.nr_missing
            if nr_missing and not parameters.get("lose_pages"):
                raise pages_missing(session_id(restore, session), nr_missing)
            tell(restore, caller, f"process {session.name} is let go of")
            self._world.restores.engine.abandon(session)
        return {}

    async def retry(self, caller: Caller, parameters: Parameters) -> View:
        """Retry()"""
        number, id = parameters.get("restore"), parameters.get("session")
        if id is not None:
            sessions = [self._world.session(caller, id)[1]]
        elif number is not None:
            sessions = self._world.restore(caller, number).live
        else:
            sessions = [session for _restore, session in self._world.sessions(caller)]
        wanting = [session for session in sessions if session.final is None and session.is_held]
        for session in wanting:
            session.retry()
        return {"nr_sessions": len(wanting)}


def tell(restore: Restore, caller: Caller, what: str) -> None:
    """Log what was done to a restore, and who wanted it."""
    log.info(
        "%s: %s, for user %d",
        restore.name,
        what,
        caller.peer.uid,
        extra={"RESTORE": restore.number, "MESSAGE_ID": MessageId.ORDERED},
    )


def pace_of(value: object) -> Pace:
    """Return the pace that is meant, or raise InvalidParameter."""
    assert isinstance(value, dict), "the interface says so"
    kind, rate = value["kind"], value.get("rate")
    if kind != "paced" and rate is None:
        return EAGER if kind == "eager" else LAZY
    if kind != "paced" or rate is None or not 0 < rate <= MAX_RATE:
        raise invalid_parameter("pace.rate")
    return Pace(rate)
