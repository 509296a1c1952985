"""Snapshots of what is served."""

from __future__ import annotations

from lazypagesd.engine.restore import Restore
from lazypagesd.service.manager.world import Caller, World, total_of
from lazypagesd.service.metrics.families import Snapshot
from lazypagesd.service.metrics.prometheus import text_of
from lazypagesd.service.threads import in_thread
from lazypagesd.service.varlink.service import Parameters, Reply


class Looking:
    """Looks at a world."""

    def __init__(self, world: World) -> None:
        """Prepare to look at *world*."""
        self._world = world

    async def snapshot(self, caller: Caller | None = None) -> Snapshot:
        """Return what *caller* may know, or all of it."""
        restores = self._world.restores.served if caller is None else self._world.visible(caller)
        return await self._of(restores)

    async def _of(self, restores: list[Restore]) -> Snapshot:
        counted = [(restore, await total_of(restore.sessions)) for restore in restores]
        return Snapshot(
            counted,
            [worker.statistics for worker in self._world.restores.engine.workers],
            sum(len(restore.live) for restore in restores),
        )

    async def text(self, caller: Caller | None = None) -> str:
        """Return it as text for Prometheus."""
        # Of a thousand restores it takes the library a second to write.
        return await in_thread(text_of, await self.snapshot(caller))

    async def get_metrics(self, caller: Caller, _parameters: Parameters) -> Reply:
        """GetMetrics()"""
        return {"text": await self.text(caller)}
