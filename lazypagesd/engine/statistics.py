"""What sessions did, as values and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from lazypagesd.native import lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData


@dataclass(frozen=True, slots=True)
class Counters:
    """struct lpd_counters of native.h, field by field, with the image's pages beside it.

    *latency* counts faults by the time from their message being read to their fill: bucket i is
    [2**i, 2**(i+1)) nanoseconds.
    """

    nr_pages: int
    nr_missing: int
    faults: int
    fills: int
    pages_fault: int
    pages_neighbour: int
    pages_drain: int
    pages_zero: int
    pages_present: int
    pages_dropped: int
    bytes: int
    events_fork: int
    events_remap: int
    events_remove: int
    events_unmap: int
    events_unknown: int
    retries: int
    requeues: int
    wakes: int
    misses: int
    held: int
    latency_sum_ns: int
    latency_max_ns: int
    latency: tuple[int, ...]

    @classmethod
    def read(cls, state: CData) -> Counters:
        """Copy the counters out of a struct lpd_state. Each is whole; together they are of about
        one moment."""
        counters = state.counters
        names = [field.name for field in fields(cls)][2:-1]
        return cls(
            nr_pages=int(state.nr_pages),
            nr_missing=int(state.nr_missing),
            latency=tuple(counters.latency[i] for i in range(lib.LPD_NR_LATENCY_BUCKETS)),
            **{name: int(getattr(counters, name)) for name in names},
        )

    @classmethod
    def total(cls, parts: Iterable[Counters]) -> Counters:
        """Add up: the longest latency is that of all, everything else a sum."""
        parts = list(parts)
        sums = {
            field.name: sum(getattr(part, field.name) for part in parts)
            for field in fields(cls)
            if field.name not in ("latency", "latency_max_ns")
        }
        return cls(
            latency=tuple(
                sum(part.latency[i] for part in parts) for i in range(lib.LPD_NR_LATENCY_BUCKETS)
            ),
            latency_max_ns=max((part.latency_max_ns for part in parts), default=0),
            **sums,
        )

    def percentile_ns(self, share: float) -> int:
        """An upper bound for the latency of *share* (0 to 1) of the faults: the end of a bucket,
        or the maximum."""
        wanted, seen = share * sum(self.latency), 0
        for bucket, count in enumerate(self.latency):
            seen += count
            if count and seen >= wanted:
                return min(2 << bucket, self.latency_max_ns)
        return 0

    @property
    def mean_ns(self) -> int:
        """Mean latency of the faults that were filled."""
        return self.latency_sum_ns // max(sum(self.latency), 1)


def table(rows: Sequence[tuple[str, Counters]]) -> list[str]:
    """Lay sessions out as lines of text: one row each, and their sum if there are several; then
    latencies."""
    if len(rows) > 1:
        rows = [*rows, ("all", Counters.total(counters for _, counters in rows))]
    cells = [HEADINGS, *([name, *row_of(counters)] for name, counters in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    if rows:
        lines.append(histogram(rows[-1][1]))
    return lines


HEADINGS = [
    *(
        "session",
        "pages",
        "missing",
        "faults",
        "on demand",
        "neighbour",
        "drain",
        "zero",
        "dropped",
    ),
    *("MiB", "fills", "retries", "misses", "held", "fork", "remap", "remove", "unmap"),
    *("mean us", "p50 us", "p99 us", "max us"),
]


def row_of(counters: Counters) -> list[str]:
    """Return one session's cells, in the order of HEADINGS."""
    return [
        str(counters.nr_pages),
        str(counters.nr_missing),
        str(counters.faults),
        str(counters.pages_fault),
        str(counters.pages_neighbour),
        str(counters.pages_drain),
        str(counters.pages_zero),
        str(counters.pages_dropped),
        f"{counters.bytes / 2**20:.1f}",
        str(counters.fills),
        str(counters.retries),
        str(counters.misses),
        str(counters.held),
        str(counters.events_fork),
        str(counters.events_remap),
        str(counters.events_remove),
        str(counters.events_unmap),
        microseconds(counters.mean_ns),
        microseconds(counters.percentile_ns(0.50)),
        microseconds(counters.percentile_ns(0.99)),
        microseconds(counters.latency_max_ns),
    ]


def microseconds(ns: int) -> str:
    """Render nanoseconds as microseconds with one decimal."""
    return f"{ns / 1000:.1f}"


def histogram(counters: Counters) -> str:
    """Name every latency bucket that counted anything: ``fault latency: 2-4 us 812, 4-8 us
    17``."""
    parts = [
        f"{2**bucket / 1000:.3g}-{2 ** (bucket + 1) / 1000:.3g} us {count}"
        for bucket, count in enumerate(counters.latency)
        if count
    ]
    return "fault latency: " + (", ".join(parts) or "no fault was filled")
