"""An image of a process: a file of pages no two of which are alike, and where they belong."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.pagemap import PageMap
from lazypagesd.native import ffi

ZERO_PAGE = bytes(PAGE_SIZE)


def page_of(key: int) -> bytes:
    """Return the page with the number *key* in the file."""
    return hashlib.shake_128(key.to_bytes(8, "little")).digest(PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class Part:
    """Pages at *start*, of which the first is page *key* of the file."""

    start: int
    nr_pages: int
    key: int

    @property
    def end(self) -> int:
        """The address behind the last page."""
        return self.start + self.nr_pages * PAGE_SIZE


class Image:
    """Runs of pages, (address, number of pages), whose bytes lie in one file, the last run
    first."""

    def __init__(self, path: Path, runs: Sequence[tuple[int, int]]) -> None:
        self.path = path
        key, parts = 0, []
        for start, nr_pages in reversed(runs):
            parts.append(Part(start, nr_pages, key))
            key += nr_pages
        self.parts = parts[::-1]
        self.nr_pages = key
        with path.open("wb") as file:
            file.writelines(page_of(i) for i in range(key))

    def page_map(self) -> PageMap:
        """Return what the engine is given."""
        regions, bit = [], 0
        for part in self.parts:
            regions.append((part.start, part.key * PAGE_SIZE, bit, part.nr_pages, 0))
            bit += part.nr_pages
        array = ffi.new("struct lpd_region[]", regions)
        return PageMap(array, len(regions), self.nr_pages, ())

    def page(self, addr: int) -> bytes:
        """Return what the page at *addr* has to be: zeros where the image has none."""
        for part in self.parts:
            if part.start <= addr < part.end:
                return page_of(part.key + (addr - part.start) // PAGE_SIZE)
        return ZERO_PAGE

    def bytes(self, addr: int, nr_pages: int) -> bytes:
        """Return what *nr_pages* pages at *addr* have to be."""
        return b"".join(self.page(addr + i * PAGE_SIZE) for i in range(nr_pages))


def wrong_pages(seen: bytes, expected: bytes) -> list[str]:
    """Name the pages that are not what they have to be, every byte compared."""
    if len(seen) != len(expected):
        return [f"{len(seen)} bytes instead of {len(expected)}"]
    return [
        f"page {at // PAGE_SIZE}: {'zeros' if page == ZERO_PAGE else page[:8].hex()}"
        for at in range(0, len(seen), PAGE_SIZE)
        if (page := seen[at : at + PAGE_SIZE]) != expected[at : at + PAGE_SIZE]
    ]
