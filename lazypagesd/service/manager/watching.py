"""Restores as they go on: Watch, and Drain as a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from lazypagesd.engine.pace import EAGER
from lazypagesd.engine.restore import Restore
from lazypagesd.service.manager.asking import Asking
from lazypagesd.service.manager.errors import not_released
from lazypagesd.service.manager.orders import tell
from lazypagesd.service.manager.views import View
from lazypagesd.service.manager.world import Caller, World
from lazypagesd.service.varlink.errors import invalid_parameter
from lazypagesd.service.varlink.service import Parameters, Piece

INTERVAL_MS = 1000
INTERVAL_MIN_MS = 100
# Somebody looks at a bar that grows.
DRAIN_INTERVAL_S = 0.1


class Watching:
    """Answers for a world."""

    def __init__(self, world: World, asking: Asking) -> None:
        """Prepare to answer for *world*."""
        self._world = world
        self._asking = asking

    async def watch(self, caller: Caller, parameters: Parameters) -> AsyncIterator[Piece]:
        """Watch(), with more"""
        number, interval_ms = parameters.get("restore"), parameters.get("interval_ms")
        if not isinstance(interval_ms, int):
            interval_ms = INTERVAL_MS
        if interval_ms < INTERVAL_MIN_MS:
            raise invalid_parameter("interval_ms")
        watched = None if number is None else self._world.restore(caller, number)
        before: list[View] | None = None
        while watched is None or self._is_served(watched):
            restores = self._world.visible(caller) if watched is None else [watched]
            views = [await self._asking.view(restore) for restore in restores]
            yield (moment(views) if views != before else None), True
            before = views
            await asyncio.sleep(interval_ms / 1000)
        past = [each.view for each in self._world.past if each.number == number]
        yield moment(past), False

    def _is_served(self, restore: Restore) -> bool:
        return self._world.restores.find(restore.number) is restore

    async def begin_drain(self, caller: Caller, parameters: Parameters) -> View:
        """Drain()"""
        restore = self._hurry(caller, parameters)
        return {"progress": (await self._asking.view(restore))["progress"]}

    async def drain(self, caller: Caller, parameters: Parameters) -> AsyncIterator[Piece]:
        """Drain(), with more"""
        restore = self._hurry(caller, parameters)
        while restore.live:
            yield {"progress": (await self._asking.view(restore))["progress"]}, True
            await asyncio.sleep(DRAIN_INTERVAL_S)
        yield {"progress": (await self._asking.view(restore))["progress"]}, False

    def _hurry(self, caller: Caller, parameters: Parameters) -> Restore:
        restore = self._world.restore(caller, parameters["restore"])
        if not restore.released:
            raise not_released(restore.number)
        restore.resume()
        restore.set_pace(EAGER)
        tell(restore, caller, "is filled as fast as it goes")
        return restore


def moment(restores: list[View]) -> View:
    """Return how *restores* are now."""
    return {"time_usec": time.time_ns() // 1000, "restores": restores}
