"""Flattening held equal to a model that looks up every page by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lazypagesd.errors import ImageError
from lazypagesd.images.mm import PAGE_SIZE, Vma
from lazypagesd.images.pagemap import PageMap
from lazypagesd.images.writer import (
    LAZY,
    PARENT,
    PRESENT,
    ImageEntry,
    ImageTask,
    anon_vma,
    write_images,
)
from tests.images.loading import BASE, addr, load

Level = tuple[ImageEntry, ...]
Place = tuple[int, int]  # a source, and a page in it


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Draw sorted, disjoint runs of pages: (first, count)."""
    pieces = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=12))
    found, page = [], 0
    for gap, count in pieces:
        found.append((page + gap, count))
        page += gap + count
    return found


@st.composite
def levels(draw: st.DrawFn) -> Level:
    flags = st.sampled_from([LAZY | PRESENT, LAZY | PARENT, PRESENT, PARENT, LAZY])
    return tuple(ImageEntry(addr(first), n, draw(flags)) for first, n in draw(runs()))


@st.composite
def mappings(draw: st.DrawFn) -> tuple[Vma, ...]:
    return tuple(anon_vma(addr(first), n) for first, n in draw(runs()))


def pages_of(entry: ImageEntry) -> Iterator[int]:
    first = (entry.vaddr - BASE) // PAGE_SIZE
    yield from range(first, first + entry.nr_pages)


def places(level: Level) -> dict[int, tuple[int, int]]:
    """Return for each page its flags, and its page in the pages file."""
    found, held = {}, 0
    for entry in level:
        for page in pages_of(entry):
            found[page] = (entry.flags, held)
            held += bool(entry.flags & PRESENT)
    return found


def resolve(chain: list[dict[int, tuple[int, int]]], page: int) -> Place | None:
    for source, level in enumerate(chain):
        flags, place = level.get(page, (0, 0))
        if flags & PRESENT:
            return source, place
        if not flags & PARENT:
            return None
    return None


def model(chain: list[Level], vmas: tuple[Vma, ...]) -> dict[int, Place | None]:
    """Return where each lazy page's bytes are; None is a page that cannot be served."""
    looked_up = [places(level) for level in chain]
    mapped = {(a - BASE) // PAGE_SIZE for v in vmas for a in range(v.start, v.end, PAGE_SIZE)}
    lazy = {page for page, (flags, _) in looked_up[0].items() if flags & LAZY}
    return {page: resolve(looked_up, page) for page in sorted(lazy & mapped)}


def write_chain(root: Path, chain: list[Level], vmas: tuple[Vma, ...]) -> Path:
    for i, level in enumerate(chain):
        held = sum(entry.nr_pages for entry in level if entry.flags & PRESENT)
        task = ImageTask(7, vmas, level, bytes(held * PAGE_SIZE))
        parent = f"../{i + 1}" if i + 1 < len(chain) else None
        write_images(root / str(i), [task], parent=parent)
    return root / "0"


def served(page_map: PageMap) -> dict[int, Place | None]:
    return {
        (region.start - BASE) // PAGE_SIZE + i: (region.source, region.offset // PAGE_SIZE + i)
        for region in page_map
        for i in range(region.nr_pages)
    }


def check_shape(page_map: PageMap, vmas: tuple[Vma, ...]) -> None:
    """Regions are sorted, each in one VMA, as few as can be, and their bits lie side by side."""
    before = None
    bit = 0
    for region in page_map:
        assert region.first_bit == bit
        bit += region.nr_pages
        (vma,) = (v for v in vmas if v.start <= region.start < v.end)
        assert region.end <= vma.end
        if before is not None:
            size = before.nr_pages * PAGE_SIZE
            assert before.end <= region.start
            assert not (
                (before.end, before.source) == (region.start, region.source)
                and before.offset + size == region.offset
                and before.start >= vma.start
            )
        before = region
    assert page_map.nr_pages == bit


@settings(deadline=None, max_examples=150)
@given(chain=st.lists(levels(), min_size=1, max_size=4), vmas=mappings())
def test_flat_map_is_that_of_the_model(chain: list[Level], vmas: tuple[Vma, ...]) -> None:
    """Every page is where looking it up image by image finds it, and refused where that fails."""
    vmas = vmas or (anon_vma(addr(100), 1),)
    want = model(chain, vmas)
    with tempfile.TemporaryDirectory() as root:
        top = write_chain(Path(root), chain, vmas)
        missing = [page for page, place in want.items() if place is None]
        try:
            checkpoint = load(top)
        except ImageError as error:
            assert missing and f"page {addr(missing[0]):#x}" in error.what
            return
        with checkpoint:
            page_map = checkpoint.page_map(7)
            assert served(page_map) == want
            check_shape(page_map, vmas)
