"""io.systemd.Metrics: what systemd's own services (260 and newer) tell of theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from lazypagesd.service.manager.world import Caller
from lazypagesd.service.metrics.families import FAMILIES, Snapshot
from lazypagesd.service.varlink.interface import Interface
from lazypagesd.service.varlink.service import Methods, Parameters, Piece, Reply

TEXT = """\
# What is measured, in systemd's way.
interface io.systemd.Metrics

# Whether a value only grows, goes up and down, or is no number.
type MetricFamilyType (counter, gauge, string)

# Every value there is; object is the number of a restore, and fields tell its values apart.
# Wants more.
method List() -> (
  name: string,
  value: object,
  object: ?string,
  fields: ?object
)

# Every family there is.  Wants more.
method Describe() -> (
  name: string,
  description: string,
  type: MetricFamilyType
)

error NoSuchMetric ()
"""
PREFIX = "org.lazypages."


class Metrics:
    """Answers by snapshots."""

    def __init__(self, look: Callable[[Caller], Awaitable[Snapshot]]) -> None:
        """Prepare to answer by what *look* returns for a caller."""
        self._look = look

    async def list(self, caller: Caller, _parameters: Parameters) -> AsyncIterator[Piece]:
        """List(), with more"""
        snapshot = await self._look(caller)
        found = []
        for family in FAMILIES:
            for sample in family.samples(snapshot):
                fields = dict(sample.labels)
                object_ = fields.pop("restore", None)
                reply: Reply = {"name": f"{PREFIX}{family.name}", "value": sample.value}
                reply |= {"object": object_} if object_ is not None else {}
                found.append(reply | ({"fields": fields} if fields else {}))
        for i, reply in enumerate(found, 1):
            yield reply, i < len(found)

    async def describe(self, _caller: Caller, _parameters: Parameters) -> AsyncIterator[Piece]:
        """Describe(), with more"""
        for i, family in enumerate(FAMILIES, 1):
            yield (
                {
                    "name": f"{PREFIX}{family.name}",
                    "description": family.help,
                    "type": str(family.kind),
                },
                i < len(FAMILIES),
            )

    def methods(self) -> Methods[Caller]:
        """Return the interface."""
        return Methods(Interface(TEXT), {}, {"List": self.list, "Describe": self.describe})
