"""Image directories read a second time: slowly, simply, and by nothing that loading uses.

What was accepted is held to this.  It looks up single addresses, and follows no cursor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.pagemap import PageMap, Region
from lazypagesd.images.wire import inventory_entry, mm_entry, pagemap_entry, pagemap_head

USER_SPACE_END = 0x7FFFFFFFF000
PARENT, LAZY, PRESENT = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Span:
    """What an entry says of [start, end); *offset* is where its bytes are, if it has some."""

    start: int
    end: int
    flags: int
    offset: int


@dataclass(frozen=True, slots=True)
class Level:
    """One directory's word on one process."""

    spans: list[Span]
    pages: Path


def read_records(path: Path, *, head: int) -> Iterator[bytes]:
    """Yield the payloads behind the *head* bytes of magic numbers."""
    data = path.read_bytes()
    while head < len(data):
        size = int.from_bytes(data[head : head + 4], "little")
        yield data[head + 4 : head + 4 + size]
        head += 4 + size


def head_sizes(top: Path) -> Iterator[tuple[Path, int]]:
    """Yield the directories of a chain, and how many bytes of magic numbers their files have."""
    size, directory = 0, top
    while True:
        inventory = directory / "inventory.img"
        if inventory.exists() and inventory.stat().st_size:
            (record,) = read_records(inventory, head=4)
            size = 4 * inventory_entry.FromString(record).img_version
        yield directory, size
        directory = directory / "parent"
        if not directory.is_dir():
            return


def read_levels(top: Path, pid: int) -> Iterator[Level]:
    """Yield what each directory says of *pid*, up to the first that does not know it."""
    for directory, head in head_sizes(top):
        path = directory / f"pagemap-{pid}.img"
        if directory != top and not (path.exists() and path.stat().st_size):
            return
        first, *entries = read_records(path, head=head)
        pages_id = pagemap_head.FromString(first).pages_id
        yield Level(list(read_spans(entries)), directory / f"pages-{pages_id}.img")


def read_spans(entries: list[bytes]) -> Iterator[Span]:
    """Yield what each of *entries* says."""
    offset = 0
    for payload in entries:
        entry = pagemap_entry.FromString(payload)
        flags = entry.flags if entry.HasField("flags") or entry.in_parent else PRESENT
        flags |= PARENT if entry.in_parent else 0
        count = entry.nr_pages if entry.HasField("nr_pages") else entry.compat_nr_pages
        yield Span(entry.vaddr, entry.vaddr + count * PAGE_SIZE, flags, offset)
        offset += count * PAGE_SIZE if flags & PRESENT else 0


def read_lazy(top: Path, pid: int) -> list[tuple[int, int]]:
    """Return the ranges of the mappings that can be lazy."""
    _, head = next(head_sizes(top))
    (record,) = read_records(top / f"mm-{pid}.img", head=head)
    special = 1 << 2 | 1 << 3 | 1 << 12 | 1 << 16  # vsyscall, vdso, vvar, guard
    return [
        (vma.start, vma.end)
        for vma in mm_entry.FromString(record).vmas
        if vma.flags & 0x42022 == 0x22 and not vma.status & special
    ]


def resolve(levels: list[Level], addr: int) -> tuple[int, int]:
    """Return the level that has the byte at *addr*, and where in its pages file."""
    for i, level in enumerate(levels):
        (span,) = (span for span in level.spans if span.start <= addr < span.end)
        if span.flags & PRESENT:
            return i, span.offset + addr - span.start
        assert span.flags & PARENT, hex(addr)
    raise AssertionError(f"{addr:#x} is in none of {len(levels)} levels")


def nr_lazy_bytes(level: Level, lazy: list[tuple[int, int]]) -> int:
    """Return how much of what is marked lazy lies where it can be."""
    return sum(
        max(0, min(span.end, end) - max(span.start, start))
        for span in level.spans
        if span.flags & LAZY
        for start, end in lazy
    )


def check_page_map(top: Path, pid: int, page_map: PageMap) -> None:
    """Assert that *page_map* is right: every page that can be lazy, once, and where it is."""
    levels, lazy = list(read_levels(top, pid)), read_lazy(top, pid)
    assert page_map.nr_pages * PAGE_SIZE == nr_lazy_bytes(levels[0], lazy)
    assert [os.fstat(file.fd).st_ino for file in page_map.sources] == [
        level.pages.stat().st_ino for level in levels
    ]
    end = bit = 0
    for region in page_map:
        assert end <= region.start
        assert region.first_bit == bit
        assert any(start <= region.start and region.end <= stop for start, stop in lazy)
        check_region(levels, region)
        end, bit = region.end, bit + region.nr_pages
    assert end <= USER_SPACE_END


def check_region(levels: list[Level], region: Region) -> None:
    """Assert that *region* is of whole pages, in its file, and agrees with each entry it meets."""
    assert region.nr_pages > 0
    assert region.start % PAGE_SIZE == region.offset % PAGE_SIZE == 0
    size = region.end - region.start
    assert region.offset + size <= levels[region.source].pages.stat().st_size
    # Between two of these every level has one entry, or none.
    cuts = {cut for level in levels for span in level.spans for cut in (span.start, span.end)}
    inside = [cut for cut in cuts if region.start < cut < region.end]
    for addr in (region.start, region.end - PAGE_SIZE, *inside):
        assert resolve(levels, addr) == (region.source, region.offset + addr - region.start)
