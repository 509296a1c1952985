"""Regions found, marked and moved, held equal to a model of one page at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from lazypagesd.native import ffi, lib
from tests.native.states import BASE, PAGE, Memory, Region, bits_of, nr_pages_of, regions_of

if TYPE_CHECKING:
    from lazypagesd.native._native import CData

NR_PLACES = 160  # pages of address space, so that bitmaps have several words
PLACES = st.integers(0, NR_PLACES)
FAR_SOURCE = 1000  # page of the source at which a region begins, times its number


@st.composite
def layouts(draw: st.DrawFn) -> list[Region]:
    """Draw sorted, disjoint regions; some of them neighbours."""
    cuts = sorted(draw(st.sets(PLACES, min_size=2, max_size=12)))
    regions: list[Region] = []
    for number, (low, high) in enumerate(itertools.pairwise(cuts)):
        if draw(st.booleans()):
            offset = (number + 1) * FAR_SOURCE * PAGE
            bit = nr_pages_of(regions)
            regions.append(Region(BASE + low * PAGE, high - low, offset, bit, number % 3))
    return regions


@st.composite
def spreads(draw: st.DrawFn) -> list[Region]:
    """Draw sorted, disjoint regions that lie in heaps, evenly, or ever further apart."""
    gaps = draw(st.sampled_from([st.just(0), st.just(7), st.integers(0, 3)]))
    far = st.integers(0, 28).map(lambda power: 2**power)
    regions: list[Region] = []
    start = BASE
    for gap in draw(st.lists(st.one_of(gaps, gaps, gaps, far), min_size=1, max_size=60)):
        nr_pages = draw(st.integers(1, 3))
        bit = nr_pages_of(regions)
        regions.append(Region(start + gap * PAGE, nr_pages, bit * PAGE, bit))
        start = regions[-1].start + nr_pages * PAGE
    return regions


@given(spreads())
def test_page_is_found_however_regions_are_spread(regions: list[Region]) -> None:
    """A page is in its region, and in none if none has it; the next that is missing is there, or
    where the next region begins."""
    memory = Memory.of(regions)
    state = memory.pointer
    run = ffi.new("struct lpd_region *")
    ends = [region.start + region.nr_pages * PAGE for region in regions]
    starts = [region.start for region in regions]
    for addr in (0, *starts, *(start - 1 for start in starts), *(end - 1 for end in ends), *ends):
        after = [region for region, end in zip(regions, ends, strict=True) if end > addr]
        holds = bool(after) and after[0].start <= addr
        found = lib.lpd_state_find(state, addr)
        assert (found.start if found else None) == (after[0].start if holds else None)
        page = addr // PAGE * PAGE
        assert lib.lpd_state_next_missing(state, page, 1, run) == bool(after)
        assert not after or run.start == max(page, after[0].start)


@dataclass
class Model:
    """What becomes of each page: where it is (address -> source, offset, bit), whether done."""

    pages: dict[int, tuple[int, int, int]]
    done: set[int] = field(default_factory=set)
    unmapped: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, regions: list[Region]) -> Model:
        return cls(
            {
                region.start + i * PAGE: (
                    region.source,
                    region.offset + i * PAGE,
                    region.first_bit + i,
                )
                for region in regions
                for i in range(region.nr_pages)
            }
        )

    def bits(self, start: int, end: int) -> set[int]:
        return {page[2] for addr, page in self.pages.items() if start <= addr < end}

    def mark(self, start: int, end: int) -> int:
        before = len(self.done)
        self.done |= self.bits(start, end)
        return len(self.done) - before

    def unmap(self, start: int, end: int) -> int:
        self.unmapped |= self.bits(start, end)
        return self.mark(start, end)

    def occupied(self, start: int, end: int) -> bool:
        return bool(self.bits(start, end) - self.unmapped)

    def remap(self, source: int, to: int, size: int) -> int:
        dropped = self.unmap(to, to + size)
        moved = {addr: page for addr, page in self.pages.items() if 0 <= addr - source < size}
        if moved:
            self.pages = {
                addr: page
                for addr, page in self.pages.items()
                if addr not in moved and not 0 <= addr - to < size
            } | {addr - source + to: page for addr, page in moved.items()}
        return dropped

    def next_missing(self, addr: int) -> int | None:
        left = (a for a, page in self.pages.items() if a >= addr and page[2] not in self.done)
        return min(left, default=None)


def assert_equal(memory: Memory, model: Model) -> None:
    """Compare the tables, then everything that can be asked."""
    state = memory.pointer
    found = regions_of(state)
    assert Model.of(found).pages == model.pages
    for one, later in itertools.pairwise(found):
        assert one.start + one.nr_pages * PAGE <= later.start
    assert len(found) <= state.nr_pages
    bits = bits_of(state)
    assert {bit for bit, done in enumerate(bits) if done} == model.done
    assert state.nr_missing == bits.count(0)
    assert lib.lpd_state_check(state, memory.size) == 0


def assert_answers_equal(memory: Memory, model: Model, addr: int, max_pages: int) -> None:
    """Compare find() and next_missing() at one address."""
    state = memory.pointer
    region = lib.lpd_state_find(state, addr)
    if addr in model.pages:
        skipped = addr - region.start
        offset, bit = region.offset + skipped, region.first_bit + skipped // PAGE
        assert (region.source, offset, bit) == model.pages[addr]
    else:
        assert region == ffi.NULL

    run = ffi.new("struct lpd_region *")
    is_missing = model.next_missing(addr) == addr
    assert lib.lpd_state_missing_at(state, addr, max_pages, run) == (
        missing_run(state, model, addr, max_pages, run) if is_missing else 0
    )
    nr_pages = lib.lpd_state_next_missing(state, addr, max_pages, run)
    assert gathered(state, addr, 1 << 47, max_pages, 1) == ([span(run)] if nr_pages else [])
    missing = model.next_missing(addr)
    assert nr_pages == (
        0 if missing is None else missing_run(state, model, missing, max_pages, run)
    )


def span(run: CData) -> tuple[int, int]:
    """Return where a run is."""
    return run.start, run.start + run.nr_pages * PAGE


def gathered(
    state: CData, start: int, end: int, max_pages: int, max_runs: int
) -> list[tuple[int, int]]:
    """Return where the runs are that are gathered."""
    runs = ffi.new("struct lpd_region[]", max_runs)
    count = lib.lpd_state_gather(state, start, end, max_pages, runs, max_runs)
    return [span(runs[i]) for i in range(count)]


def assert_gathers(memory: Memory, model: Model, start: int, end: int, max_pages: int) -> None:
    """See that runs from *start* to *end* are all that is missing there, up to *max_pages*."""
    state = memory.pointer
    found = gathered(state, start, end, max_pages, NR_PLACES)
    pages = [addr for low, high in found for addr in range(low, high, PAGE)]
    missing = (a for a, page in sorted(model.pages.items()) if page[2] not in model.done)
    assert pages == [a for a in missing if start <= a < end][:max_pages]
    for few in (1, 3):
        assert gathered(state, start, end, max_pages, few) == found[:few]


def missing_run(state: CData, model: Model, addr: int, max_pages: int, run: CData) -> int:
    """See that *run* is what is missing from *addr* on; return how long it is to be."""
    assert (run.source, run.offset, run.first_bit) == model.pages[addr]
    region = lib.lpd_state_find(state, addr)
    left = region.nr_pages - (addr - region.start) // PAGE
    length = next((i for i in range(left) if run.first_bit + i in model.done), left)
    assert (run.start, run.nr_pages) == (addr, min(length, max_pages))
    return int(run.nr_pages)


def place(data: st.DataObject) -> int:
    return BASE + data.draw(PLACES) * PAGE


def extent(data: st.DataObject) -> tuple[int, int]:
    start, end = sorted((place(data), place(data)))
    return start, end


def mark(data: st.DataObject, memory: Memory, model: Model) -> None:
    start, end = extent(data)
    assert lib.lpd_state_mark(memory.pointer, start, end) == model.mark(start, end)


def unmap(data: st.DataObject, memory: Memory, model: Model) -> None:
    start, end = extent(data)
    assert lib.lpd_state_unmap(memory.pointer, start, end) == model.unmap(start, end)


def occupied(data: st.DataObject, memory: Memory, model: Model) -> None:
    start, end = extent(data)
    assert bool(lib.lpd_state_occupied(memory.pointer, start, end)) == model.occupied(start, end)


def ask(data: st.DataObject, memory: Memory, model: Model) -> None:
    assert_answers_equal(memory, model, place(data), data.draw(st.integers(1, 100)))
    assert_gathers(memory, model, *extent(data), data.draw(st.integers(1, 100)))


def remap(data: st.DataObject, memory: Memory, model: Model) -> None:
    low, high = extent(data)
    if low == high:
        return
    size = data.draw(st.integers(1, (high - low) // PAGE)) * PAGE
    source, to = data.draw(st.permutations([low, high]))
    cursor = data.draw(st.integers(0, lib.LPD_MAX_MESSAGES))
    dropped = lib.lpd_state_remap(memory.pointer, source, to, size, cursor)
    assert dropped == model.remap(source, to, size)
    assert memory.pointer.commit >> 48 == cursor


OPERATIONS: list[Callable[[st.DataObject, Memory, Model], None]]
OPERATIONS = [mark, unmap, remap, occupied, ask]


@settings(deadline=None, max_examples=400)
@given(layouts(), st.data())
def test_regions_are_those_of_the_model(regions: list[Region], data: st.DataObject) -> None:
    """Whatever is marked, unmapped and moved, every page is where the model says, as it says."""
    memory, model = Memory.of(regions, nr_sources=3), Model.of(regions)
    for operation in data.draw(st.lists(st.sampled_from(OPERATIONS), max_size=12)):
        operation(data, memory, model)
        assert_equal(memory, model)


def test_remap_changes_table_and_cursor_in_one_word() -> None:
    """With the word that was there before a move, everything is as it was before."""
    memory = Memory.of([Region(BASE, 4, 0, 0)])
    state = memory.pointer
    before, regions = state.commit, regions_of(state)

    lib.lpd_state_remap(state, BASE + PAGE, BASE + 8 * PAGE, PAGE, 5)
    after = state.commit

    assert len(regions_of(state)) == 3
    assert after >> 48 == 5
    state.commit = before
    assert regions_of(state) == regions
    state.commit = after
    assert [region.start for region in regions_of(state)] == [
        BASE + place * PAGE for place in (0, 2, 8)
    ]


def test_remap_of_what_is_no_image_drops_what_it_covers() -> None:
    """Memory that is moved onto a region takes its place, image or not."""
    memory = Memory.of([Region(BASE, 4, 0, 0)])
    dropped = lib.lpd_state_remap(memory.pointer, BASE + 8 * PAGE, BASE + PAGE, 2 * PAGE, 1)
    assert (dropped, bits_of(memory.pointer)) == (2, [0, 1, 1, 0])
    assert not lib.lpd_state_occupied(memory.pointer, BASE + PAGE, BASE + 3 * PAGE)


def test_removed_pages_stay_mapped() -> None:
    """What madvise() has emptied still occupies its place; what munmap() took does not."""
    memory = Memory.of([Region(BASE, 2, 0, 0)])
    lib.lpd_state_mark(memory.pointer, BASE, BASE + 2 * PAGE)
    assert lib.lpd_state_occupied(memory.pointer, BASE, BASE + PAGE)
    lib.lpd_state_unmap(memory.pointer, BASE, BASE + PAGE)
    assert not lib.lpd_state_occupied(memory.pointer, BASE, BASE + PAGE)
    assert lib.lpd_state_occupied(memory.pointer, BASE, BASE + 2 * PAGE)


def test_middle() -> None:
    """The upper half begins with a region or, where there is but one, in the middle of it."""
    regions = [Region(BASE + i * 100 * PAGE, 10, i * 10 * PAGE, i * 10) for i in range(5)]
    memory = Memory.of(regions)
    end = 1 << 47

    def middle(start: int, end: int, min_pages: int = 1) -> int:
        return int(lib.lpd_state_middle(memory.pointer, start, end, min_pages))

    assert middle(0, end) == regions[2].start
    assert middle(0, regions[2].start) == regions[1].start
    assert middle(regions[1].start + PAGE, regions[3].start + PAGE) == regions[2].start
    assert middle(0, regions[1].start) == regions[0].start + 5 * PAGE
    assert middle(regions[4].start + 6 * PAGE, end, 2) == regions[4].start + 8 * PAGE
    # Too little, none, and an end that has been passed.
    assert middle(regions[4].start + 7 * PAGE, end, 2) == end
    assert middle(regions[4].start + 10 * PAGE, end) == end
    assert middle(regions[3].start, regions[1].start) == regions[1].start
