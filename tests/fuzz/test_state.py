"""States that somebody else left: refused, or safe to go on with."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from lazypagesd.native import ffi, lib
from tests.fuzz.guarded import Guarded
from tests.fuzz.trees import NUMBERS
from tests.native.states import BASE, PAGE, Region, c_regions, mend_checksum

if TYPE_CHECKING:
    from lazypagesd.native._native import CData

USER_SPACE_END = 0x7FFFFFFFF000
NR_PAGES = 10
REGIONS = (
    Region(BASE, 4, 0, 0),
    Region(BASE + 4 * PAGE, 3, 9 * PAGE, 4, 1),
    Region(BASE + 20 * PAGE, 3, 4 * PAGE, 7),
)
SIZE = lib.lpd_state_size(NR_PAGES)
HEAD = ffi.sizeof("struct lpd_state")
COMMIT = ffi.offsetof("struct lpd_state", "commit")
ORDER = ffi.offsetof("struct lpd_state", "order")

ADDRESSES = st.integers(-2, 40).map(lambda page: BASE + page * PAGE)
# (operation, an address, another, pages): what events make of a state.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["mark", "unmap", "remap", "find", "next", "fork"]),
        ADDRESSES,
        ADDRESSES,
        st.integers(1, 8),
    ),
    max_size=6,
)


class Left:
    """A state in memory that ends where the state does."""

    def __init__(self, size: int = SIZE) -> None:
        self._memory = Guarded(size)
        self.bytes = self._memory.as_array("uint8_t")
        self.pointer = self._memory.as_array("struct lpd_state")

    @classmethod
    def valid(cls) -> Left:
        """Return one of REGIONS."""
        left = cls()
        regions = c_regions(REGIONS)
        protocol = lib.LPD_PROTOCOL_UFFD_MSG
        arguments = regions, len(REGIONS), NR_PAGES, 2
        assert lib.lpd_state_init(left.pointer, protocol, *arguments) == 0
        return left

    def put(self, at: int, data: bytes) -> None:
        """Write *data* at offset *at*, as far as there is room."""
        data = data[: SIZE - at]
        ffi.buffer(self.bytes + at, len(data))[:] = data

    def mend_checksum(self) -> None:
        """Make the checksum right, as one who does it on purpose would."""
        mend_checksum(self.pointer)

    def regions(self) -> list[CData]:
        """Return the regions in force."""
        count = ffi.new("uint64_t *")
        array = lib.lpd_state_regions(self.pointer, count)
        return [array[i] for i in range(count[0])]


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Draw what is written where: mostly where something stands."""
    table = lib.lpd_state_size(NR_PAGES) - 2 * PAGE  # of NR_PAGES * 32 bytes, each a page long
    places = st.one_of(
        st.integers(0, COMMIT // 4).map(lambda word: 4 * word),
        st.sampled_from([COMMIT, COMMIT + 4, COMMIT + 5, COMMIT + 6, COMMIT + 8]),
        st.integers(0, 8).map(lambda i: ORDER + 2 * i),
        st.integers(0, 31).map(lambda word: table + 4 * word),
        st.integers(0, SIZE - 1),
    )
    values = st.one_of(
        st.binary(max_size=4),
        NUMBERS.map(lambda number: number.to_bytes(8, "little")),
        NUMBERS.map(lambda number: (number & 0xFFFFFFFF).to_bytes(4, "little")),
    )
    return draw(st.lists(st.tuples(places, values), max_size=4))


def check_accepted(left: Left) -> None:
    """Assert that nothing in a state that passed leads out of it."""
    state, end, total = left.pointer, 0, 0
    assert state.size == lib.lpd_state_size(state.nr_pages) == SIZE
    for region in left.regions():
        size = region.nr_pages * PAGE
        assert end <= region.start < region.start + size <= USER_SPACE_END
        assert (region.start | region.offset) % PAGE == 0
        assert region.offset + size < 2**63
        assert region.source < state.nr_sources
        assert region.nr_pages
        assert region.first_bit + region.nr_pages <= state.nr_pages
        end, total = region.start + size, total + region.nr_pages
    assert total <= state.nr_pages
    cursor = state.commit >> 48
    assert all(state.order[i] < lib.LPD_MAX_MESSAGES for i in range(cursor))


def go_on(state: CData, event: tuple[str, int, int, int]) -> None:
    """Do to *state* what an event, or a fill, does."""
    operation, start, other, nr_pages = event
    size = nr_pages * PAGE
    match operation:
        case "mark":
            lib.lpd_state_mark(state, start, start + size)
        case "unmap":
            lib.lpd_state_unmap(state, start, start + size)
        case "remap" if abs(start - other) >= size:
            lib.lpd_state_remap(state, start, other, size, 0)
        case "find":
            region = lib.lpd_state_find(state, start)
            assert not region or region.start <= start < region.start + region.nr_pages * PAGE
            assert not region or lib.lpd_state_test(state, region.first_bit) in (0, 1)
        case "next":
            found = ffi.new("struct lpd_region *")
            assert lib.lpd_state_next_missing(state, start, nr_pages, found) <= nr_pages
            assert lib.lpd_state_missing_at(state, start, nr_pages, found) <= nr_pages
            lib.lpd_state_occupied(state, start, start + size)
        case "fork":
            child = Left()
            lib.lpd_state_fork(child.pointer, state)
            check_accepted(child)


@settings(deadline=None, max_examples=500)
@given(changes(), st.booleans(), EVENTS)
def test_state_that_passes_its_check_can_be_gone_on_with(
    changed: list[tuple[int, bytes]], mend: bool, events: list[tuple[str, int, int, int]]
) -> None:
    """Nothing in it leads out of it, and nothing that happens next touches what is beyond."""
    left = Left.valid()
    for at, data in changed:
        left.put(at, data)
    if mend:
        left.mend_checksum()
    result = lib.lpd_state_check(left.pointer, SIZE)
    assert result in (0, -errno.EPROTO, -errno.EBADMSG, -errno.EPROTONOSUPPORT)
    if result:
        return
    check_accepted(left)
    assert left.pointer.nr_missing <= NR_PAGES
    for event in events:
        go_on(left.pointer, event)
    check_accepted(left)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=64), st.integers(0, SIZE // 8).map(lambda n: 8 * n), st.booleans())
def test_mapping_of_any_size_is_checked_within_its_bounds(
    data: bytes, size: int, valid: bool
) -> None:
    """A mapping that ends too soon is refused, and nothing behind its end is read.

    Its sizes are of whole words, so that it begins at one, as every mapping does.
    """
    left = Left(size)
    if valid:
        whole = Left.valid()
        data = bytes(ffi.buffer(whole.bytes, SIZE))
    left.put(0, data[:size])
    result = lib.lpd_state_check(left.pointer, size)
    assert result in ((0,) if valid and size == SIZE else (-errno.EPROTO, -errno.EBADMSG))
