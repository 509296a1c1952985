"""Restores, sessions and faults in the words of the interface: JSON, as values of Python."""

from __future__ import annotations

import time

from lazypagesd.engine.pace import EAGER, LAZY, Pace
from lazypagesd.engine.recorder import Fault, Step, StepKind
from lazypagesd.engine.restore import Restore
from lazypagesd.engine.session import Session, Waiting
from lazypagesd.engine.statistics import KINDS, Counters, Latency
from lazypagesd.engine.worker import WorkerStatistics
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.service.manager.rates import Rate

View = dict[str, object]

SUMS = (
    "faults",
    "fills",
    "pages_fault",
    "pages_neighbour",
    "pages_followed",
    "pages_drain",
    "pages_zero",
    "pages_present",
    "pages_dropped",
    "bytes",
    "events_fork",
    "events_remap",
    "events_remove",
    "events_unmap",
    "events_unknown",
    "orders_guessed",
    "retries",
    "requeues",
    "wakes",
    "misses",
    "held",
)


def session_id(restore: Restore, session: Session) -> str:
    """Return what a session is called: its restore's number, and its own name within it."""
    return f"{restore.number}/{session.name.removeprefix(f'{restore.name}/')}"


def usec_of(monotonic_ns: int) -> int:
    """Return the moment since 1970, in microseconds, of one of CLOCK_MONOTONIC."""
    return (time.time_ns() - time.monotonic_ns() + monotonic_ns) // 1000


def pace_view(pace: Pace) -> View:
    """Return a pace."""
    if pace == EAGER:
        return {"kind": "eager"}
    return {"kind": "lazy"} if pace == LAZY else {"kind": "paced", "rate": pace.rate}


def progress_view(counters: Counters, rate: Rate | None) -> View:
    """Return how far those are who have counted so."""
    view: View = {
        "nr_pages": counters.nr_pages,
        "nr_missing": counters.nr_missing,
        "bytes_filled": counters.bytes,
        "rate": rate.last if rate else 0,
    }
    if counters.nr_missing == 0:
        view["end_in_ns"] = 0
    elif rate and rate.of_late:
        view["end_in_ns"] = counters.nr_missing * PAGE_SIZE * 10**9 // rate.of_late
    return view


def latency_view(kind: str, latency: Latency) -> View:
    """Return the latencies of one kind."""
    return {
        "kind": kind,
        "count": latency.count,
        "sum_ns": latency.sum_ns,
        "max_ns": latency.max_ns,
        "p50_ns": latency.percentile_ns(0.50),
        "p99_ns": latency.percentile_ns(0.99),
        "buckets": list(latency.buckets),
    }


def statistics_view(counters: Counters) -> View:
    """Return what was counted."""
    view: View = {name: getattr(counters, name) for name in SUMS}
    kinds = zip(KINDS, counters.latencies, strict=True)
    return view | {"latencies": [latency_view(kind, latency) for kind, latency in kinds]}


def worker_view(statistics: WorkerStatistics) -> View:
    """Return what a worker did."""
    return {
        "number": statistics.number,
        "nr_sessions": statistics.nr_sessions,
        "busy_ns": statistics.busy_ns,
        "polled_ns": statistics.polled_ns,
        "uptime_ns": statistics.uptime_ns,
        "rounds": statistics.nr_turns,
        "longest_round_ns": statistics.longest_turn_ns,
    }


def waiting_view(session: str, waiting: Waiting) -> View:
    """Return a fault that is not answered yet, of the session called so."""
    view: View = {
        "session": session,
        "addr": waiting.addr,
        "waited_ns": max(time.monotonic_ns() - waiting.since_ns, 0),
        "reason": str(waiting.reason),
    }
    if waiting.source is not None:
        view |= {"source": waiting.source, "offset": waiting.offset}
    if waiting.error is not None:
        view["error"] = waiting.error.strerror
    return view


def session_state(session: Session) -> str:
    """Return the state of a session."""
    if session.final is not None and session.end is not None:
        return str(session.end)
    if session.is_forking:
        return "forking"
    return "waiting" if session.is_held else "serving"


def restore_state(restore: Restore) -> str:
    """Return the state of a restore that is being served."""
    if not restore.released:
        return "handing_over"
    if not restore.live:
        return "ended"  # and its client has yet to leave
    if any(session.is_held for session in restore.live):
        return "waiting"
    return "paused" if restore.paused else "filling"


def session_view(restore: Restore, session: Session, counters: Counters) -> View:
    """Return a session that has counted so."""
    view: View = {
        "id": session_id(restore, session),
        "restore": restore.number,
        "state": session_state(session),
        "nr_regions": session.nr_regions,
        # What was filled a second is not measured of each.
        "progress": progress_view(counters, None),
        "statistics": statistics_view(counters),
    }
    optional = {
        "pid": session.pid,
        "worker": session.worker.number if session.worker else None,
        "nr_queued": session.nr_queued,
    }
    return view | {name: value for name, value in optional.items() if value is not None}


def restore_view(restore: Restore, counters: Counters, rate: Rate | None) -> View:
    """Return a restore whose sessions have counted so, all together."""
    return {
        "id": restore.number,
        "name": restore.name,
        "owner": restore.owner,
        "state": restore_state(restore),
        "pace": pace_view(restore.pace),
        "began_usec": restore.began_usec,
        "nr_sessions": len(restore.sessions),
        "nr_live": len(restore.live),
        "progress": progress_view(counters, rate),
        "statistics": statistics_view(counters),
    }


def fault_view(fault: Fault, worker: int, session: str) -> View:
    """Return a fault that is on record with a worker."""
    view: View = {
        "time_usec": usec_of(fault.time_ns),
        "worker": worker,
        "session": session,
        "addr": fault.addr,
        "kind": fault.kind,
        "outcome": str(fault.outcome),
        "latency_ns": fault.latency_ns,
        "tries": fault.tries,
    }
    if fault.tid:
        view["tid"] = fault.tid
    if fault.source is not None:
        view |= {"source": fault.source, "offset": fault.offset}
    return view


def step_view(step: Step, worker: int, session: str, child: str | None) -> View:
    """Return a step that is on record with a worker; *child* is the session that it has made."""
    view: View = {
        "time_usec": usec_of(step.time_ns),
        "worker": worker,
        "session": session,
        "kind": str(step.kind),
        "addr": step.addr,
        "len": step.len,
    }
    if step.kind is StepKind.REMAP:
        view["to_addr"] = step.to
    if child is not None:
        view["child"] = child
    return view
