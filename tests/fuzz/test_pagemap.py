"""The C that reads pagemaps, on anything at all, in buffers that end where they say.

What it makes of them is in tests/native/test_pagemap.py and tests/images/test_pagemap.py; here it
is that nothing beyond is touched, and that where a file is cut into pieces makes no difference.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from lazypagesd.images.refusals import ADDRESSED, WORDS
from lazypagesd.native import ffi, lib
from tests.fuzz.guarded import Guarded
from tests.fuzz.trees import NUMBERS, File, change_record, valid_trees

if TYPE_CHECKING:
    from lazypagesd.native._native import CData

ENTRY = ffi.sizeof("struct lpd_entry")
REGION = ffi.sizeof("struct lpd_region")
RANGE = ffi.sizeof("struct lpd_range")
# Of a level's array, as ctypes would pack it: start, offset, nr_pages, flags.
ENTRIES = st.lists(
    st.tuples(NUMBERS, NUMBERS, st.integers(0, 2**32 - 1), st.integers(0, 8)), max_size=8
)
RANGES = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a file: how it ended, and the entries until then."""

    result: int
    fault: tuple[int, int, int]
    entries: tuple[tuple[int, int, int, int], ...]


@st.composite
def pagemap_files(draw: st.DrawFn) -> bytes:
    """Draw the records of a pagemap file, without its head, or bytes that are none."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(max_size=64))
    tree = draw(st.sampled_from(valid_trees()))
    file = tree["0/pagemap-7.img"]
    assert isinstance(file, File)
    data = file.data
    for _ in range(draw(st.integers(0, 3))):
        data = change_record(draw, data)
    return data[14:]


def decode(data: bytes, capacity: int, sizes: list[int]) -> Decoded:
    """Decode *data* in pieces of *sizes* bytes, and then the rest."""
    entries = Guarded(capacity * ENTRY)
    pagemap = ffi.new("struct lpd_pagemap *")
    pagemap.entries, pagemap.capacity = entries.as_array("struct lpd_entry"), capacity
    pagemap.file_size = len(data)
    error = ffi.new("struct lpd_image_error *")
    result, pending = 0, list(reversed(sizes))
    while not result and pagemap.position < len(data):
        before = pagemap.position
        size = pending.pop() if pending else len(data)
        piece = Guarded.of(data[before : before + size])
        result = lib.lpd_pagemap_decode(pagemap, piece.as_array("uint8_t"), piece.size, error)
        assert before <= pagemap.position <= before + piece.size
        # To the end of the file, at the latest, it goes on.
        assert result or size < len(data) or pagemap.position > before
    array = pagemap.entries
    found = [array[i] for i in range(pagemap.nr_entries)]
    raw = tuple((entry.start, entry.offset, entry.nr_pages, entry.flags) for entry in found)
    return Decoded(result, (error.fault, error.offset, error.value), raw)


@settings(deadline=None, max_examples=500)
@given(pagemap_files(), st.lists(st.integers(0, 40), max_size=8), st.integers(0, 12))
def test_pieces_decode_as_the_whole_does(data: bytes, sizes: list[int], capacity: int) -> None:
    """Wherever it is cut, entries and refusal are the same, and nothing else is touched."""
    whole = decode(data, capacity, [])
    assert decode(data, capacity, sizes) == whole
    assert whole.result in (0, -errno.EBADMSG, -errno.ENOSPC)
    assert len(whole.entries) <= capacity
    if whole.result == -errno.EBADMSG:
        fault, offset, _ = whole.fault
        assert fault in WORDS.keys() - ADDRESSED
        assert offset <= len(data)


@settings(deadline=None, max_examples=200)
@given(pagemap_files())
def test_count_is_what_is_decoded_and_is_bounded_by_the_file(data: bytes) -> None:
    """No more entries are counted than there is room for, and no fewer than are decoded."""
    pagemap = ffi.new("struct lpd_pagemap *")
    pagemap.file_size = len(data)
    error = ffi.new("struct lpd_image_error *")
    piece = Guarded.of(data)
    result = lib.lpd_pagemap_decode(pagemap, piece.as_array("uint8_t"), piece.size, error)
    assert pagemap.nr_entries * 8 <= len(data)
    decoded = decode(data, 64, [])
    if result:
        assert decoded.result == result
    elif not decoded.result:
        assert len(decoded.entries) == pagemap.nr_entries


class Chain:
    """A struct lpd_chain of arrays that end where they say."""

    def __init__(
        self, levels: list[list[tuple[int, int, int, int]]], vmas: list[tuple[int, int]]
    ) -> None:
        self._kept = [filled("struct lpd_entry", ENTRY, level) for level in levels]
        ranges = filled("struct lpd_range", RANGE, vmas)
        self._levels = Guarded(len(levels) * ffi.sizeof("struct lpd_level"))
        for i, kept in enumerate(self._kept):
            array = kept.as_array("struct lpd_entry")
            self._levels.as_array("struct lpd_level")[i] = (array, len(levels[i]), 0)
        self._kept.append(ranges)
        self.pointer = ffi.new(
            "struct lpd_chain *",
            (
                self._levels.as_array("struct lpd_level"),
                ranges.as_array("struct lpd_range"),
                len(vmas),
                len(levels),
            ),
        )

    def flatten(self, regions: CData, capacity: int) -> tuple[int, int]:
        """Return what lpd_chain_flatten() does, and how many regions it found."""
        error = ffi.new("struct lpd_image_error *")
        count = ffi.new("uint64_t *")
        return lib.lpd_chain_flatten(self.pointer, regions, capacity, error, count), count[0]


def filled(kind: str, size: int, rows: Sequence[tuple[int, ...]]) -> Guarded:
    """Return an array of *rows*, each a *kind* of *size* bytes."""
    guarded = Guarded(len(rows) * size)
    array = guarded.as_array(kind)
    for i, row in enumerate(rows):
        array[i] = row
    return guarded


@settings(deadline=None, max_examples=300)
@given(st.lists(ENTRIES, min_size=1, max_size=3), RANGES, st.integers(0, 3))
def test_flattening_of_anything_ends_and_stays_within_its_arrays(
    levels: list[list[tuple[int, int, int, int]]], vmas: list[tuple[int, int]], less: int
) -> None:
    """Entries that cannot be are refused, or come to no more regions than there is room for."""
    chain = Chain(levels, vmas)
    enough = sum(map(len, levels)) + 2 * len(vmas) + len(levels[0]) * len(vmas)
    regions = Guarded(enough * REGION)
    result, count = chain.flatten(regions.as_array("struct lpd_region"), enough)
    assert result in (0, -errno.EBADMSG)
    if result:
        return
    capacity = max(0, count - less)
    fewer = Guarded(capacity * REGION)
    got, again = chain.flatten(fewer.as_array("struct lpd_region"), capacity)
    assert (got, again) == ((0, count) if capacity == count else (-errno.ENOSPC, 0))
