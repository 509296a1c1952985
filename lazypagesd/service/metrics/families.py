"""All that is measured, a family a quantity: what it is called, what it is, and how to get it.

Of restores there is a sample each, of sessions none: there can be thousands.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lazypagesd.engine.restore import Restore
from lazypagesd.engine.statistics import KINDS, Counters
from lazypagesd.engine.worker import WorkerStatistics
from lazypagesd.images.mm import PAGE_SIZE

NS = 1e-9


class Kind(enum.StrEnum):
    """What can become of a value."""

    COUNTER = "counter"  # it only grows
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The daemon at one moment: what each restore has counted, and each worker."""

    restores: Sequence[tuple[Restore, Counters]]
    workers: Sequence[WorkerStatistics]
    nr_sessions: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A value, and of what it is, by *labels*; *restore* is the number of its restore."""

    value: float
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    """A quantity, in Prometheus's words: *name* without prefix, and its unit at the end."""

    name: str
    kind: Kind
    help: str
    samples: Callable[[Snapshot], Iterable[Sample]]


def of_restores(take: Callable[[Restore, Counters], float]) -> Callable[[Snapshot], list[Sample]]:
    """Return what has a sample for each restore."""

    def samples(snapshot: Snapshot) -> list[Sample]:
        return [
            Sample(take(restore, counters), {"restore": str(restore.number)})
            for restore, counters in snapshot.restores
        ]

    return samples


def of_parts(
    label: str, parts: dict[str, Callable[[Counters], float]]
) -> Callable[[Snapshot], list[Sample]]:
    """Return what has a sample for each restore and each of *parts*, told apart by a *label*."""

    def samples(snapshot: Snapshot) -> list[Sample]:
        return [
            Sample(take(counters), {"restore": str(restore.number), label: name})
            for restore, counters in snapshot.restores
            for name, take in parts.items()
        ]

    return samples


def of_workers(take: Callable[[WorkerStatistics], float]) -> Callable[[Snapshot], list[Sample]]:
    """Return what has a sample for each worker."""

    def samples(snapshot: Snapshot) -> list[Sample]:
        return [Sample(take(each), {"worker": str(each.number)}) for each in snapshot.workers]

    return samples


def alone(take: Callable[[Snapshot], float]) -> Callable[[Snapshot], list[Sample]]:
    """Return what has one sample."""
    return lambda snapshot: [Sample(take(snapshot), {})]


REASONS: dict[str, Callable[[Counters], float]] = {
    "fault": lambda c: c.pages_fault,
    "neighbour": lambda c: c.pages_neighbour,
    "drain": lambda c: c.pages_drain,
    "zero": lambda c: c.pages_zero,
}
EVENTS: dict[str, Callable[[Counters], float]] = {
    "fork": lambda c: c.events_fork,
    "remap": lambda c: c.events_remap,
    "remove": lambda c: c.events_remove,
    "unmap": lambda c: c.events_unmap,
    "unknown": lambda c: c.events_unknown,
}

FAMILIES = (
    Family("restores", Kind.GAUGE, "Restores that are served", alone(lambda s: len(s.restores))),
    Family("sessions", Kind.GAUGE, "Sessions that are served", alone(lambda s: s.nr_sessions)),
    Family(
        "missing_bytes",
        Kind.GAUGE,
        "Memory that the image still has to give",
        of_restores(lambda _restore, c: c.nr_missing * PAGE_SIZE),
    ),
    Family(
        "image_bytes",
        Kind.GAUGE,
        "Memory that the image has in all",
        of_restores(lambda _restore, c: c.nr_pages * PAGE_SIZE),
    ),
    Family(
        "waiting_sessions",
        Kind.GAUGE,
        "Sessions in which a page is waited for that cannot be filled",
        of_restores(lambda restore, _c: sum(session.is_held for session in restore.live)),
    ),
    Family(
        "faults_total", Kind.COUNTER, "Page faults read", of_restores(lambda _restore, c: c.faults)
    ),
    Family(
        "filled_bytes_total",
        Kind.COUNTER,
        "Memory filled from the image",
        of_restores(lambda _restore, c: c.bytes),
    ),
    Family(
        "pages_filled_total",
        Kind.COUNTER,
        "Pages filled, by the reason for it",
        of_parts("reason", REASONS),
    ),
    Family(
        "neighbours_followed_total",
        Kind.COUNTER,
        "Pages around faults whose neighbourhood was gone through to its end",
        of_restores(lambda _restore, c: c.pages_followed),
    ),
    Family(
        "pages_dropped_total",
        Kind.COUNTER,
        "Pages that processes gave up before they were filled",
        of_restores(lambda _restore, c: c.pages_dropped),
    ),
    Family(
        "events_total",
        Kind.COUNTER,
        "Events of processes, by what they did",
        of_parts("event", EVENTS),
    ),
    Family(
        "orders_guessed_total",
        Kind.COUNTER,
        "Events whose order could not be known: pages of theirs may be wrong",
        of_restores(lambda _restore, c: c.orders_guessed),
    ),
    Family(
        "retries_total",
        Kind.COUNTER,
        "Fills tried again, for want of quiet or of memory",
        of_restores(lambda _restore, c: c.retries),
    ),
    Family(
        "misses_total",
        Kind.COUNTER,
        "Faults whose bytes were not at hand",
        of_restores(lambda _restore, c: c.misses),
    ),
    Family(
        "worker_busy_seconds_total",
        Kind.COUNTER,
        "Time in which a worker was at work",
        of_workers(lambda w: w.busy_ns * NS),
    ),
    Family(
        "worker_polled_seconds_total",
        Kind.COUNTER,
        "Time in which a worker asked for messages instead of sleeping",
        of_workers(lambda w: w.polled_ns * NS),
    ),
    Family(
        "worker_rounds_total",
        Kind.COUNTER,
        "Turns of a worker's loop",
        of_workers(lambda w: w.nr_turns),
    ),
    Family(
        "worker_longest_round_seconds",
        Kind.GAUGE,
        "The longest turn of a worker's loop so far",
        of_workers(lambda w: w.longest_turn_ns * NS),
    ),
)


def latency_samples(snapshot: Snapshot) -> Iterable[tuple[dict[str, str], Sequence[int], int]]:
    """Yield the labels of each histogram of latencies, its buckets as in Latency, and its sum in
    nanoseconds."""
    for restore, counters in snapshot.restores:
        for kind, latency in zip(KINDS, counters.latencies, strict=True):
            labels = {"restore": str(restore.number), "kind": kind}
            yield labels, latency.buckets, latency.sum_ns
