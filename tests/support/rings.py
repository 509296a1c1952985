"""A ring of the flight recorder as a whole."""

from __future__ import annotations

from collections.abc import Collection

from lazypagesd.engine.recorder import Entry, Ring


def all_of(ring: Ring[Entry], sessions: Collection[int] | None = None) -> list[Entry]:
    """Return all entries, of *sessions* or of all, the oldest first."""
    return [entry for entries in ring.read(sessions) for entry in entries]
