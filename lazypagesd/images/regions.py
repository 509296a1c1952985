"""A page map without images: regions that a restore tool names itself."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.pagemap import PageMap
from lazypagesd.native import ffi

REGION = struct.Struct("=QQQII")  # struct lpd_region, which a test holds it to
NR_PAGES_MAX = 2**32 - 1
USER_SPACE_END = 0x7FFFFFFFF000  # LPD_USER_SPACE_END, likewise


@dataclass(frozen=True, slots=True)
class NamedRegion:
    """*nr_pages* pages at *start* are in file number *source* at *offset*."""

    start: int
    nr_pages: int
    offset: int
    source: int

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.nr_pages * PAGE_SIZE


class RegionTable:
    """Regions of files of *sizes* bytes, which come in pieces and in ascending order."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = tuple(sizes)
        self._packed = bytearray()
        self._end = 0
        self._nr_pages = 0

    def __len__(self) -> int:
        return len(self._packed) // REGION.size

    def add(self, region: NamedRegion) -> list[str]:
        """Append *region*; return every reason why that cannot be, and then leave it out."""
        if reasons := [*self._reasons_against(region)]:
            return reasons
        self._packed += REGION.pack(
            region.start, region.offset, self._nr_pages, region.nr_pages, region.source
        )
        self._end = region.start + region.size
        self._nr_pages += region.nr_pages
        return []

    def page_map(self) -> PageMap:
        """Return all of it; nothing is added any more."""
        # The array holds the buffer, and the buffer the bytes.
        regions = ffi.from_buffer("struct lpd_region[]", self._packed)
        return PageMap(regions, len(self), self._nr_pages, ())

    def _reasons_against(self, region: NamedRegion) -> list[str]:
        reasons = []
        if not 0 < region.nr_pages <= NR_PAGES_MAX:
            reasons.append(f"has {region.nr_pages} pages: let it have 1 to {NR_PAGES_MAX}")
        if region.start % PAGE_SIZE or region.offset % PAGE_SIZE:
            reasons.append(
                f"is not aligned (offset {region.offset:#x}):"
                f" let start and offset be multiples of {PAGE_SIZE}"
            )
        if region.start + region.size > USER_SPACE_END:
            reasons.append(f"runs past the user's addresses ({USER_SPACE_END:#x})")
        elif region.start < self._end:
            reasons.append(f"begins before the one before it ends ({self._end:#x}): sort them")
        if region.source >= len(self._sizes):
            reasons.append(f"names file {region.source} of {len(self._sizes)}: count from 0")
        elif region.offset + region.size > self._sizes[region.source]:
            reasons.append(
                f"needs {region.offset + region.size} bytes of file {region.source},"
                f" which has {self._sizes[region.source]}"
            )
        return reasons
