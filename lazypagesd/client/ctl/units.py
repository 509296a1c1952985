"""Numbers as people read them."""

from __future__ import annotations

BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
PAGE_SIZE = 4096


def duration(ns: int) -> str:
    """Return a time: ``40 us``, ``1.2 ms``, ``3.4 s``, ``2 min 5 s``, ``3 h 2 min``."""
    if ns < 1000:
        return f"{ns} ns"
    for limit, unit, size in (
        (10**6, "us", 10**3),
        (10**9, "ms", 10**6),
        (60 * 10**9, "s", 10**9),
    ):
        if ns < limit:
            value = ns / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    seconds = ns // 10**9
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def size(nr_bytes: int) -> str:
    """Return an amount of memory, in binary units: ``12.3 MiB``."""
    value, unit = float(nr_bytes), 0
    while value >= 1024 and unit < len(BINARY) - 1:
        value, unit = value / 1024, unit + 1
    return f"{nr_bytes} B" if unit == 0 else f"{value:.1f} {BINARY[unit]}"


def pages(nr_pages: int) -> str:
    """Return how much memory so many pages are."""
    return size(nr_pages * PAGE_SIZE)


def share(nr: int, nr_all: int) -> str:
    """Return a share that may be small, with what is behind the point."""
    return "-" if nr_all == 0 else f"{100 * nr / nr_all:.2g} %"


def percent(nr_done: int, nr_all: int) -> str:
    """Return a share, rounded down, so that only all is 100 %."""
    return "-" if nr_all == 0 else f"{100 * nr_done // nr_all} %"


def printable(text: str) -> str:
    """Return *text*, which somebody else has chosen, with what would move a terminal spelt out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def count(number: int, what: str) -> str:
    """Say how many there are of *what*."""
    return f"{number} {what}" + ("" if number == 1 else "s")
