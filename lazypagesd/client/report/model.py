"""What is to be seen in a recording, as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

View = dict[str, Any]

PAGE_SIZE = 4096
# Ranges of addresses that are closer than this are drawn as one.
GAP = 64 * PAGE_SIZE
COLUMNS, ROWS = 200, 80
# Of the time from the first fault, in seconds.
WORKING_SETS_S = (0.1, 1.0, 10.0)


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a recording covers, in microseconds since 1970."""

    start: int
    end: int

    @classmethod
    def of(cls, entries: Sequence[View], fallback: int) -> Span:
        """Return that of *entries*; without any, a moment."""
        times = [entry["time_usec"] for entry in entries]
        start = min(times, default=fallback)
        return cls(start, max(max(times, default=fallback), start + 1))

    def column(self, time_usec: int, nr_columns: int) -> int:
        """Return in which of so many columns a moment is."""
        place = (time_usec - self.start) * nr_columns // (self.end - self.start)
        return min(max(place, 0), nr_columns - 1)


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses [start, end)."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start


def ranges_of(addresses: Iterable[int], gap: int = GAP) -> list[Range]:
    """Return where pages at *addresses* are, with the gaps between mappings left out."""
    found: list[Range] = []
    for addr in sorted(set(addresses)):
        if found and addr - found[-1].end < gap:
            found[-1] = Range(found[-1].start, addr + PAGE_SIZE)
        else:
            found.append(Range(addr, addr + PAGE_SIZE))
    return found


@dataclass(frozen=True, slots=True)
class Heat:
    """How many faults were in each cell of time (columns) and address (rows, low ones first)."""

    ranges: list[Range]
    cells: dict[tuple[int, int], int]

    def first_rows(self) -> list[tuple[int, Range]]:
        """Return in which row each range begins."""
        total = sum(each.size for each in self.ranges)
        found, before = [], 0
        for each in self.ranges:
            found.append((before * ROWS // total, each))
            before += each.size
        return found


def heat_of(faults: Sequence[View], span: Span) -> Heat:
    """Return the faults as a grid."""
    ranges = ranges_of(fault["addr"] for fault in faults)
    total = sum(each.size for each in ranges)
    cells: dict[tuple[int, int], int] = {}
    starts, before = [], 0
    for each in ranges:
        starts.append(before)
        before += each.size
    by_addr = sorted(faults, key=lambda fault: fault["addr"])
    place = 0
    for fault in by_addr:
        while fault["addr"] >= ranges[place].end:
            place += 1
        offset = starts[place] + fault["addr"] - ranges[place].start
        cell = span.column(fault["time_usec"], COLUMNS), offset * ROWS // total
        cells[cell] = cells.get(cell, 0) + 1
    return Heat(ranges, cells)


REASONS = ("fault", "neighbour", "drain", "zero")


def filled_pages(faults: Sequence[View], steps: Sequence[View]) -> list[tuple[int, str, int]]:
    """Return what was filled, in the order of time: when, why, and how many pages."""
    found = [
        (fault["time_usec"], "fault" if "source" in fault else "zero", 1)
        for fault in faults
        if fault["outcome"] == "filled"
    ]
    found += [
        (step["time_usec"], step["kind"], step["len"] // PAGE_SIZE)
        for step in steps
        if step["kind"] in REASONS
    ]
    return sorted(found)


def growth_of(
    faults: Sequence[View], steps: Sequence[View], span: Span, nr_points: int = COLUMNS
) -> dict[str, list[int]]:
    """Return how many pages were in at each of so many moments, by the reason for it."""
    grown = {reason: [0] * nr_points for reason in REASONS}
    for time_usec, reason, nr_pages in filled_pages(faults, steps):
        grown[reason][span.column(time_usec, nr_points)] += nr_pages
    for counts in grown.values():
        for i in range(1, nr_points):
            counts[i] += counts[i - 1]
    return grown


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """The pages that were asked for in the first *seconds*."""

    seconds: float
    nr_pages: int
    ranges: list[Range]


def working_sets(faults: Sequence[View], span: Span) -> list[WorkingSet]:
    """Return those of the first moments."""
    found = []
    for seconds in WORKING_SETS_S:
        end = span.start + int(seconds * 1e6)
        pages = {fault["addr"] & -PAGE_SIZE for fault in faults if fault["time_usec"] <= end}
        found.append(WorkingSet(seconds, len(pages), ranges_of(pages, gap=1)))
    return found


EVENTS = ("fork", "remap", "remove", "unmap")


def events_of(steps: Sequence[View]) -> list[View]:
    """Return what the processes did to their mappings."""
    return [step for step in steps if step["kind"] in EVENTS]
