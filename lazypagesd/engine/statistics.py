"""What sessions did, as values and as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from lazypagesd.native import lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData


# What it took to answer a fault: enum lpd_fault_kind.
KINDS = ("image", "zero", "retry", "cold")


@dataclass(frozen=True, slots=True)
class Latency:
    """Faults by the time from their message being read to their fill: bucket i counts those of
    [2**i, 2**(i+1)) nanoseconds."""

    count: int
    sum_ns: int
    max_ns: int
    buckets: tuple[int, ...]

    @classmethod
    def read(cls, latency: CData) -> Latency:
        """Copy a struct lpd_latency: each number whole, all of about one moment."""
        return cls(
            count=int(latency.count),
            sum_ns=int(latency.sum_ns),
            max_ns=int(latency.max_ns),
            buckets=tuple(latency.buckets),
        )

    @classmethod
    def total(cls, parts: Iterable[Latency]) -> Latency:
        """Add up; the longest is that of all."""
        parts = list(parts)
        columns = zip(*(part.buckets for part in parts), strict=True)
        return cls(
            count=sum(part.count for part in parts),
            sum_ns=sum(part.sum_ns for part in parts),
            max_ns=max((part.max_ns for part in parts), default=0),
            buckets=tuple(map(sum, columns)) or (0,) * lib.LPD_NR_LATENCY_BUCKETS,
        )

    def percentile_ns(self, share: float) -> int:
        """Return an upper bound for the latency of *share* (0 to 1) of the faults.

        It is the end of a bucket, or the maximum.
        """
        wanted, seen = share * sum(self.buckets), 0
        for bucket, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return min(2 << bucket, self.max_ns)
        return 0

    @property
    def mean_ns(self) -> int:
        """Mean of the faults that were filled."""
        return self.sum_ns // max(self.count, 1)


@dataclass(frozen=True, slots=True)
class Counters:
    """struct lpd_counters of state.h, field by field, with the image's pages beside it.

    *latencies* has one for each of KINDS.
    """

    nr_pages: int
    nr_missing: int
    faults: int
    fills: int
    pages_fault: int
    pages_neighbour: int
    pages_followed: int
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
    orders_guessed: int
    retries: int
    requeues: int
    wakes: int
    misses: int
    held: int
    latencies: tuple[Latency, ...]

    @classmethod
    def read(cls, state: CData) -> Counters:
        """Copy the counters out of a struct lpd_state: each whole, all of about one moment."""
        counters = state.counters
        return cls(
            nr_pages=int(state.nr_pages),
            nr_missing=int(state.nr_missing),
            latencies=tuple(map(Latency.read, counters.latencies)),
            **{name: getattr(counters, name) for name in COUNTED},
        )

    @classmethod
    def total(cls, parts: Iterable[Counters]) -> Counters:
        """Add up."""
        parts = list(parts)
        sums = {
            field.name: sum(getattr(part, field.name) for part in parts)
            for field in fields(cls)
            if field.name != "latencies"
        }
        latencies = [Latency.total(part.latencies[i] for part in parts) for i in range(len(KINDS))]
        return cls(latencies=tuple(latencies), **sums)

    @property
    def latency(self) -> Latency:
        """That of all faults, whatever it took."""
        return Latency.total(self.latencies)


# What struct lpd_counters has, but for the latencies.
COUNTED = tuple(field.name for field in fields(Counters))[2:-1]


def report(rows: Sequence[tuple[str, Counters]]) -> list[str]:
    """Lay sessions out as lines of text: what was filled, how faults fared, and a summary.

    Each row is a name and its counters; several are followed by their sum.
    """
    total = Counters.total(counters for _, counters in rows)
    named = [*rows, ("all", total)] if len(rows) > 1 else rows
    return [
        *table("pages", PAGES, named),
        *table("faults", FAULTS, named),
        histogram(total),
        summary(total),
    ]


Column = Callable[[Counters], object]

PAGES: dict[str, Column] = {
    "in image": lambda c: c.nr_pages,
    "on demand": lambda c: c.pages_fault,
    "neighbour": lambda c: c.pages_neighbour,
    "drain": lambda c: c.pages_drain,
    "present": lambda c: c.pages_present,
    "dropped": lambda c: c.pages_dropped,
    "missing": lambda c: c.nr_missing,
    "zero": lambda c: c.pages_zero,
    "MiB": lambda c: f"{c.bytes / 2**20:.1f}",
    "fills": lambda c: c.fills,
}
FAULTS: dict[str, Column] = {
    "read": lambda c: c.faults,
    "mean us": lambda c: microseconds(c.latency.mean_ns),
    "p50 us": lambda c: microseconds(c.latency.percentile_ns(0.50)),
    "p99 us": lambda c: microseconds(c.latency.percentile_ns(0.99)),
    "max us": lambda c: microseconds(c.latency.max_ns),
    "retries": lambda c: c.retries,
    "requeues": lambda c: c.requeues,
    "misses": lambda c: c.misses,
    "held": lambda c: c.held,
    "fork": lambda c: c.events_fork,
    "remap": lambda c: c.events_remap,
    "remove": lambda c: c.events_remove,
    "unmap": lambda c: c.events_unmap,
    "guessed": lambda c: c.orders_guessed,
}


def table(
    title: str, columns: dict[str, Column], rows: Sequence[tuple[str, Counters]]
) -> list[str]:
    """Align one line of headings, and one of cells for each row."""
    cells = [[title, *columns]]
    cells += [[name, *(str(of(counters)) for of in columns.values())] for name, counters in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]


def microseconds(ns: int) -> str:
    """Render nanoseconds as microseconds with one decimal."""
    return f"{ns / 1000:.1f}"


def histogram(counters: Counters) -> str:
    """Name every latency bucket that counted anything, by where it begins: ``8.2 us 17``."""
    parts = [
        f"{microseconds(1 << bucket)} us {count}"
        for bucket, count in enumerate(counters.latency.buckets)
        if count
    ]
    return "latencies from: " + (", ".join(parts) or "no fault was filled")


def summary(counters: Counters) -> str:
    """Say in a sentence how faults were served, and how much was filled."""
    latency = counters.latency
    return (
        f"{counters.faults} faults served, mean {microseconds(latency.mean_ns)} us,"
        f" 99 % within {microseconds(latency.percentile_ns(0.99))} us;"
        f" {counters.bytes / 2**20:.1f} MiB filled, {counters.nr_missing} pages missing"
    )
