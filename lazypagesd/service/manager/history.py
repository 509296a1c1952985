"""What is on record: faults and other steps, from the flight recorders of all workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from lazypagesd.engine.recorder import Fault, Recorder, Ring, Step
from lazypagesd.service.manager.errors import no_such_restore, no_such_session
from lazypagesd.service.manager.views import View, fault_view, session_id, step_view
from lazypagesd.service.manager.world import Caller, World
from lazypagesd.service.varlink.errors import invalid_parameter
from lazypagesd.service.varlink.service import Parameters, Piece

LIMIT = 1000
# Entries in a reply: as many as may be made in one go.
AT_ONCE = 250

Entry = Fault | Step


@dataclass(slots=True)
class Names:
    """What sessions are called, by their numbers in the recorder, as far as it is known: of those
    that *caller* may know of.  *wanted* are the numbers that are asked for."""

    ids: dict[int, str] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)

    def of(self, number: int) -> str:
        """Return what a session is called."""
        return self.ids.get(number, f"#{number}")


class History:
    """Answers for a world."""

    def __init__(self, world: World) -> None:
        """Prepare to answer for *world*."""
        self._world = world

    # ---- GetFaults, GetSteps ----

    async def faults(self, caller: Caller, parameters: Parameters) -> View:
        """GetFaults()"""
        return await self._newest("faults", fault_entry, caller, parameters)

    async def steps(self, caller: Caller, parameters: Parameters) -> View:
        """GetSteps()"""
        return await self._newest("steps", step_entry, caller, parameters)

    async def stream_faults(self, caller: Caller, parameters: Parameters) -> AsyncIterator[Piece]:
        """GetFaults(), with more"""
        async for piece in self._stream("faults", fault_entry, caller, parameters):
            yield piece

    async def stream_steps(self, caller: Caller, parameters: Parameters) -> AsyncIterator[Piece]:
        """GetSteps(), with more"""
        async for piece in self._stream("steps", step_entry, caller, parameters):
            yield piece

    async def last_faults(self, number: int, limit: int) -> list[tuple[int, Fault]]:
        """Return the last faults of the session of that number, with their workers; the oldest
        first."""
        found: list[tuple[int, Fault]] = []
        for worker, recorder in enumerate(self._recorders()):
            for batch in recorder.faults.newest(limit, {number}):
                found += [(worker, fault) for fault in batch]
                await asyncio.sleep(0)
        return sorted(found, key=lambda each: each[1].time_ns)[-limit:]

    async def _newest(
        self,
        name: str,
        view: Callable[[Entry, int, Names], View],
        caller: Caller,
        parameters: Parameters,
    ) -> View:
        limit = limit_of(parameters)
        names = self.names(caller, parameters)
        found: list[tuple[int, Entry]] = []
        for worker, ring in enumerate(self._rings(name)):
            for batch in ring.newest(limit, names.wanted):
                found += [(worker, entry) for entry in batch]
                await asyncio.sleep(0)
        found.sort(key=lambda each: each[1].time_ns)
        views = []
        for worker, entry in found[-limit:]:
            views.append(view(entry, worker, names))
            if len(views) % AT_ONCE == 0:
                await asyncio.sleep(0)
        return {name: views, "nr_lost": self._nr_lost(name)}

    async def _stream(
        self,
        name: str,
        view: Callable[[Entry, int, Names], View],
        caller: Caller,
        parameters: Parameters,
    ) -> AsyncIterator[Piece]:
        names = self.names(caller, parameters)
        views: list[View] = []
        rings = enumerate(self._rings(name))
        entries = [entries_of(worker, ring, names.wanted) for worker, ring in rings]
        async for worker, entry in merged(entries):
            views.append(view(entry, worker, names))
            if len(views) == AT_ONCE:
                yield {name: views, "nr_lost": self._nr_lost(name)}, True
                views = []
        yield {name: views, "nr_lost": self._nr_lost(name)}, False

    def _nr_lost(self, name: str) -> int:
        return sum(ring.nr_lost for ring in self._rings(name))

    def _rings(self, name: str) -> list[Ring[Fault] | Ring[Step]]:
        return [
            recorder.faults if name == "faults" else recorder.steps
            for recorder in self._recorders()
        ]

    def _recorders(self) -> list[Recorder]:
        return self._world.restores.engine.recorders

    # ---- whose ----

    def names(self, caller: Caller, parameters: Parameters) -> Names:
        """Return the sessions that ``restore`` and ``session`` mean, of those that were as well;
        or raise NoSuchRestore or NoSuchSession."""
        number, id = parameters.get("restore"), parameters.get("session")
        names, is_known = Names(), number is None
        for restore, ids in self._all_ids(caller):
            names.ids |= ids
            if number in (None, restore):
                is_known = True
                names.wanted |= {each for each, name in ids.items() if id in (None, name)}
        if not is_known:
            raise no_such_restore(number)
        if id is not None and not names.wanted:
            raise no_such_session(id)
        return names

    def _all_ids(self, caller: Caller) -> Iterator[tuple[int, dict[int, str]]]:
        for past in self._world.visible_past(caller):
            yield past.number, past.ids
        for restore in self._world.visible(caller):
            yield restore.number, {each.id: session_id(restore, each) for each in restore.sessions}


def limit_of(parameters: Parameters) -> int:
    """Return how many entries are asked for."""
    limit = parameters.get("limit")
    if not isinstance(limit, int):
        return LIMIT
    if limit < 1:
        raise invalid_parameter("limit")
    return limit


async def entries_of(
    worker: int, ring: Ring[Fault] | Ring[Step], wanted: set[int]
) -> AsyncIterator[tuple[int, Entry]]:
    """Yield the entries of one worker, and let others have their turn now and then."""
    for batch in ring.read(wanted):
        for entry in batch:
            yield worker, entry
        await asyncio.sleep(0)


async def merged(
    sources: Sequence[AsyncIterator[tuple[int, Entry]]],
) -> AsyncIterator[tuple[int, Entry]]:
    """Yield the entries of all *sources*, each of which is in the order of time, in that order."""
    heads = [(source, await anext(source, None)) for source in sources]
    while left := [(head[1].time_ns, i) for i, (_source, head) in enumerate(heads) if head]:
        _time_ns, first = min(left)
        source, head = heads[first]
        assert head is not None, "it is left"
        yield head
        heads[first] = source, await anext(source, None)


def fault_entry(entry: Entry, worker: int, names: Names) -> View:
    """Return a fault."""
    assert isinstance(entry, Fault)
    return fault_view(entry, worker, names.of(entry.session))


def step_entry(entry: Entry, worker: int, names: Names) -> View:
    """Return a step."""
    assert isinstance(entry, Step)
    child = names.of(entry.child) if entry.child else None
    return step_view(entry, worker, names.of(entry.session), child)
