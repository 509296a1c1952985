"""Recordings that are made up, as the interface says they are."""

from __future__ import annotations

from typing import Any

from lazypagesd.client.report.recording import Recording
from lazypagesd.engine.statistics import Counters
from lazypagesd.service.manager.views import statistics_view

View = dict[str, Any]

PAGE = 4096
BASE = 0x7F0000000000
BEGAN = 1_700_000_000_000_000
PROGRESS = {"nr_pages": 1000, "nr_missing": 0, "bytes_filled": 1000 * PAGE, "rate": 0}


def fault(usec: int, page: int, **more: object) -> View:
    """Return a fault at a page, so long after the beginning."""
    return {
        "time_usec": BEGAN + usec,
        "worker": 0,
        "session": "1/7",
        "addr": BASE + page * PAGE,
        "kind": "image",
        "outcome": "filled",
        "source": 0,
        "offset": page * PAGE,
        "latency_ns": 5000,
        "tries": 1,
        **more,
    }


def step(usec: int, kind: str, page: int, nr_pages: int, **more: object) -> View:
    """Return something else that happened."""
    return {
        "time_usec": BEGAN + usec,
        "worker": 0,
        "session": "1/7",
        "kind": kind,
        "addr": BASE + page * PAGE,
        "len": nr_pages * PAGE,
        **more,
    }


def recording(
    faults: list[View], steps: list[View] | None = None, name: str = "restore 1 (web)"
) -> Recording:
    """Return a recording with these on it."""
    statistics = statistics_view(Counters.total([]))
    common = {"progress": PROGRESS, "statistics": statistics}
    restore = {"id": 1, "name": name, "owner": 0, "state": "ended", "began_usec": BEGAN}
    restore |= {"pace": {"kind": "eager"}, "nr_sessions": 1, "nr_live": 0, **common}
    session = {"id": "1/7", "restore": 1, "state": "drained", "nr_regions": 0, **common}
    return Recording({"version": "0"}, restore, [session], faults, steps or [], 0)
