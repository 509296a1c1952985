"""States to try the data plane's bookkeeping on, in memory of this process alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lazypagesd.native import ffi, lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData

PAGE = lib.LPD_PAGE_SIZE
BASE = 0x10000000


class Region(NamedTuple):
    start: int
    nr_pages: int
    offset: int
    first_bit: int
    source: int = 0


def c_regions(regions: Sequence[Region]) -> CData:
    """Return them as struct lpd_region[]."""
    array = ffi.new("struct lpd_region[]", max(len(regions), 1))
    for raw, region in zip(array, regions, strict=False):
        for name, value in region._asdict().items():
            setattr(raw, name, value)
    return array


def nr_pages_of(regions: Sequence[Region]) -> int:
    return sum(region.nr_pages for region in regions)


def mend_checksum(state: CData) -> None:
    """Make the checksum of a struct lpd_state right."""
    total = 0xCBF29CE484222325
    for byte in bytes(ffi.buffer(state, ffi.offsetof("struct lpd_state", "checksum"))):
        total = (total ^ byte) * 0x100000001B3 % 2**64
    state.checksum = total


class Memory:
    """A struct lpd_state at *pointer*, in memory that this object keeps."""

    def __init__(self, nr_pages: int) -> None:
        self.size = lib.lpd_state_size(nr_pages)
        self._words = ffi.new("uint64_t[]", self.size // 8)
        self.pointer: CData = ffi.cast("struct lpd_state *", self._words)

    @classmethod
    def of(cls, regions: Sequence[Region], nr_sources: int = 1) -> Memory:
        """Return the state that begins with *regions*."""
        memory = cls(nr_pages_of(regions))
        assert memory.init(regions, nr_sources=nr_sources) == 0
        return memory

    def init(
        self,
        regions: Sequence[Region],
        *,
        nr_pages: int | None = None,
        nr_sources: int = 1,
        protocol: int = lib.LPD_PROTOCOL_UFFD_MSG,
    ) -> int:
        """Call lpd_state_init()."""
        array = c_regions(regions)
        n = nr_pages_of(regions) if nr_pages is None else nr_pages
        return lib.lpd_state_init(self.pointer, protocol, array, len(regions), n, nr_sources)


def regions_of(pointer: CData) -> list[Region]:
    """Return the regions in force."""
    nr_regions = ffi.new("uint64_t *")
    raw = lib.lpd_state_regions(pointer, nr_regions)
    found = [raw[i] for i in range(nr_regions[0])]
    return [Region(r.start, r.nr_pages, r.offset, r.first_bit, r.source) for r in found]


def bits_of(pointer: CData) -> list[int]:
    """Return, for every page, whether the image no longer speaks for it."""
    return [lib.lpd_state_test(pointer, bit) for bit in range(pointer.nr_pages)]
