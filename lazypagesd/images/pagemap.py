"""The flat page map of a process: every page that can be lazy, and where its bytes are."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lazypagesd.images.entries import Entries, new_uncleared
from lazypagesd.images.mm import PAGE_SIZE, Vma
from lazypagesd.images.pages import PagesFile
from lazypagesd.images.refusals import check, new_error
from lazypagesd.native import ffi, lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData


@dataclass(frozen=True, slots=True)
class Region:
    """A ``struct lpd_region`` in Python; *source* is an index into the page map's sources."""

    start: int
    nr_pages: int
    offset: int
    source: int
    first_bit: int

    @property
    def end(self) -> int:
        """The address behind the last page."""
        return self.start + self.nr_pages * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class PageMap:
    """All that can be lazy of one process, in *nr_regions* regions of together *nr_pages* pages.

    *regions* is a ``struct lpd_region[]``, sorted and disjoint, that lives as long as this object:
    to be read and copied, not written.  *sources* belong to the checkpoint, which closes them.
    """

    regions: CData
    nr_regions: int
    nr_pages: int
    sources: tuple[PagesFile, ...]

    def __iter__(self) -> Iterator[Region]:
        for i in range(self.nr_regions):
            raw = self.regions[i]
            yield Region(raw.start, raw.nr_pages, raw.offset, raw.source, raw.first_bit)


def flatten(
    levels: Sequence[Entries], vmas: Iterable[Vma], sources: tuple[PagesFile, ...]
) -> PageMap:
    """Lay a process's entries flat over those of its *vmas* that can be lazy.

    *levels* are its entries in the checkpoint, in the parent of that and so on, *sources* their
    pages files.  Raises ImageError if a lazy page is in none of them.
    """
    chain = _Chain(levels, vmas)
    regions, nr_regions = chain.flatten()
    nr_pages = 0
    if nr_regions:
        last = regions[nr_regions - 1]
        nr_pages = int(last.first_bit + last.nr_pages)
    return PageMap(regions, nr_regions, nr_pages, sources)


class _Chain:
    # A struct lpd_chain, and the arrays that it points to for as long as it does.
    def __init__(self, levels: Sequence[Entries], vmas: Iterable[Vma]) -> None:
        lazy = [(vma.start, vma.end) for vma in vmas if vma.lazy]
        self._entries = levels
        self._names = [entries.name for entries in levels]
        self._levels = ffi.new(
            "struct lpd_level[]", [(entries.array, entries.count, 0) for entries in levels]
        )
        self._vmas = ffi.new("struct lpd_range[]", lazy)
        self._chain = ffi.new(
            "struct lpd_chain *", (self._levels, self._vmas, len(lazy), len(levels))
        )

    def flatten(self) -> tuple[CData, int]:
        # What is not needed of so much room is never touched, and so no memory.
        capacity = self._chain.nr_vmas + sum(entries.count for entries in self._entries)
        regions = new_uncleared("struct lpd_region[]", capacity)
        error = new_error()
        count = ffi.new("uint64_t *")
        result = lib.lpd_chain_flatten(self._chain, regions, capacity, error, count)
        assert result != -errno.ENOSPC, "more regions than entries and VMAs"
        check(result, error, self._names)
        return regions, int(count[0])
