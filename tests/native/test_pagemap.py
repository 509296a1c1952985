"""The C decoder of pagemap entries held equal to protobuf."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lazypagesd.images.framing import U32
from lazypagesd.images.mm import ADDR_LIMIT, PAGE_SIZE
from lazypagesd.images.wire import pagemap_entry
from lazypagesd.native import ffi, lib

PARENT, LAZY, PRESENT = lib.LPD_ENTRY_PARENT, lib.LPD_ENTRY_LAZY, lib.LPD_ENTRY_PRESENT


@dataclass(frozen=True, slots=True)
class Entry:
    start: int
    offset: int
    nr_pages: int
    flags: int


@dataclass(frozen=True, slots=True)
class Refusal:
    fault: int
    offset: int
    value: int


def decode(data: bytes, *, capacity: int = 64, count_only: bool = False) -> list[Entry] | Refusal:
    """Decode the records in *data* as the C side does."""
    array = ffi.NULL if count_only else ffi.new("struct lpd_entry[]", capacity)
    pagemap = ffi.new("struct lpd_pagemap *")
    pagemap.entries, pagemap.capacity = array, capacity
    pagemap.file_size = len(data)
    error = ffi.new("struct lpd_image_error *")
    buffer = ffi.from_buffer("uint8_t[]", data)
    result = lib.lpd_pagemap_decode(pagemap, buffer, len(data), error)
    if result:
        assert result == -errno.EBADMSG
        return Refusal(error.fault, error.offset, error.value)
    assert pagemap.position == len(data)
    found = range(0 if count_only else pagemap.nr_entries)
    raw = [array[i] for i in found]
    return [Entry(entry.start, entry.offset, entry.nr_pages, entry.flags) for entry in raw]


def valid(start: int, nr_pages: int, flags: int, end: int) -> bool:
    return (
        0 < nr_pages < 2**32
        and flags in (PARENT, LAZY, PRESENT, PARENT | LAZY, PRESENT | LAZY)
        and start % PAGE_SIZE == 0
        and start + nr_pages * PAGE_SIZE <= ADDR_LIMIT
        and start >= end
    )


def reference(payloads: list[bytes]) -> list[Entry] | None:
    """Decode by protobuf, and normalise as CRIU does; None if any of it is not to be served."""
    entries: list[Entry] = []
    offset = end = 0
    for payload in payloads:
        try:
            message = pagemap_entry.FromString(payload)
        except DecodeError:
            return None
        if not message.IsInitialized() or len(UnknownFieldSet(message)):
            return None
        flags = message.flags if message.HasField("flags") or message.in_parent else PRESENT
        flags |= PARENT if message.in_parent else 0
        n = message.nr_pages if message.HasField("nr_pages") else message.compat_nr_pages
        if not valid(message.vaddr, n, flags, end):
            return None
        entries.append(Entry(message.vaddr, offset, n, flags))
        end = message.vaddr + n * PAGE_SIZE
        offset += n * PAGE_SIZE if flags & PRESENT else 0
    return entries


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def frame(payloads: list[bytes]) -> bytes:
    return b"".join(U32.pack(len(payload)) + payload for payload in payloads)


@st.composite
def messages(draw: st.DrawFn, vaddr: int) -> bytes:
    """Draw an entry at *vaddr*: fields in any order, optional ones or not, some of them twice."""
    counts = st.one_of(st.integers(1, 4), st.sampled_from([0, 2**32, 2**32 + 1, 2**64 - 1]))
    flags = st.one_of(st.sampled_from([1, 2, 3, 4, 6]), st.integers(0, 9), st.just(2**32 + 4))
    fields = [field(1, vaddr), field(2, draw(counts))]
    for number, values in ((3, st.integers(0, 2)), (4, flags), (5, counts)):
        fields += [field(number, value) for value in draw(st.lists(values, max_size=2))]
    return b"".join(draw(st.permutations(fields)))


@st.composite
def pagemaps(draw: st.DrawFn) -> list[bytes]:
    pages = draw(st.lists(st.integers(0, 6), max_size=6))
    vaddr, payloads = 0, []
    for step in pages:
        vaddr += step * PAGE_SIZE
        payloads.append(draw(messages(vaddr)))
    return payloads


def assert_equal(payloads: list[bytes]) -> None:
    got, want = decode(frame(payloads)), reference(payloads)
    if want is not None and isinstance(got, Refusal):
        # Where we are the stricter: protobuf drops what a number has above 64 bits.
        assert got.fault == lib.LPD_IMAGE_VARINT
        assert any(byte >= 0x80 for payload in payloads for byte in payload)
    else:
        assert (None if isinstance(got, Refusal) else got) == want


@settings(deadline=None, max_examples=300)
@given(pagemaps())
def test_entries_are_those_of_protobuf(payloads: list[bytes]) -> None:
    """Whatever a writer of these fields can write is decoded, or refused, as by protobuf."""
    assert_equal(payloads)


@settings(deadline=None, max_examples=500)
@given(messages(PAGE_SIZE), st.data())
def test_entries_are_those_of_protobuf_when_mutated(payload: bytes, data: st.DataObject) -> None:
    """No byte that is changed, put in or taken out makes the two differ."""
    mutated = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(mutated)))
        mutated[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    assert_equal([bytes(mutated)])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=24))
@example(b"\x88\x80\x80\x80\x00\x00\x10\x01")  # a tag of five bytes
@example(b"\x88\x80\x80\x80\x80\x00\x00\x10\x01")  # and of six, which protobuf refuses
@example(b"\x08\x80\x00\x10\x01")  # a number longer than it need be
def test_entries_are_those_of_protobuf_when_garbage(payload: bytes) -> None:
    """Any bytes at all are decoded, or refused, as by protobuf."""
    assert_equal([payload])


def test_last_of_two_fields_wins() -> None:
    """A field that is given twice has its last value, as in protobuf."""
    payload = field(1, 0) + field(2, 1) + field(1, PAGE_SIZE)
    assert decode(frame([payload])) == [Entry(PAGE_SIZE, 0, 1, PRESENT)]


def test_in_parent_stands_for_its_flag() -> None:
    """What CRIU wrote before there were flags is read as the flag that it became."""
    old = field(1, 0) + field(2, 1) + field(3, 1)
    assert decode(frame([old])) == [Entry(0, 0, 1, PARENT)]


def test_offsets_count_present_entries_only() -> None:
    """Only what is in the pages file takes place in it."""
    payloads = [
        field(1, i * PAGE_SIZE) + field(2, 1) + field(4, flags)
        for i, flags in enumerate([PRESENT, PARENT, LAZY | PRESENT, LAZY, PRESENT])
    ]
    entries = decode(frame(payloads))
    assert isinstance(entries, list)
    assert [entry.offset // PAGE_SIZE for entry in entries] == [0, 1, 1, 2, 2]


def test_fault_is_told_with_its_offset_and_value() -> None:
    """A field's fault is told at the field, a record's at the record."""
    good = field(1, 0) + field(2, 1)
    data = frame([good, good])
    record = len(data) // 2
    assert decode(data) == Refusal(lib.LPD_IMAGE_UNSORTED, record, 0)
    data = frame([good, field(1, PAGE_SIZE) + field(9, 1)])
    assert decode(data) == Refusal(lib.LPD_IMAGE_UNKNOWN_FIELD, record + 4 + 3, 9)


def test_counting_looks_at_framing_only() -> None:
    """Without an array the records are counted, and must fit the file."""
    assert decode(frame([b"\xff" * 4, b"\xff" * 5]), count_only=True) == []
    cut = decode(frame([b"\xff"])[:-1], count_only=True)
    assert cut == Refusal(lib.LPD_IMAGE_PAST_FILE, 0, 1)


@given(st.binary(max_size=3))
def test_counting_refuses_a_record_too_short_for_any_entry(payload: bytes) -> None:
    """What is shorter than two fields is refused before anything is allocated for it."""
    got = decode(frame([payload]), count_only=True)
    assert isinstance(got, Refusal)
    assert got == decode(frame([payload]))


def test_decoding_stops_at_capacity() -> None:
    """More entries than there is room for are an error and not written."""
    data = frame([field(1, i * PAGE_SIZE) + field(2, 1) for i in range(2)])
    pagemap = ffi.new("struct lpd_pagemap *")
    array = ffi.new("struct lpd_entry[]", 1)
    pagemap.entries, pagemap.capacity = array, 1
    pagemap.file_size = len(data)
    error = ffi.new("struct lpd_image_error *")
    buffer = ffi.from_buffer("uint8_t[]", data)
    result = lib.lpd_pagemap_decode(pagemap, buffer, len(data), error)
    assert (result, pagemap.nr_entries) == (-errno.ENOSPC, 1)


def test_record_cut_by_the_buffer_is_left_for_the_next() -> None:
    """A buffer that ends inside a record, and not at the file's end, is decoded up to that."""
    data = frame([field(1, 0) + field(2, 1), field(1, PAGE_SIZE) + field(2, 1)])
    pagemap = ffi.new("struct lpd_pagemap *")
    array = ffi.new("struct lpd_entry[]", 2)
    pagemap.entries, pagemap.capacity = array, 2
    pagemap.file_size = len(data)
    error = ffi.new("struct lpd_image_error *")
    buffer = ffi.from_buffer("uint8_t[]", data)
    assert lib.lpd_pagemap_decode(pagemap, buffer, len(data) - 1, error) == 0
    assert (pagemap.nr_entries, pagemap.position) == (1, 8)
    rest = ffi.from_buffer("uint8_t[]", data[8:])
    assert lib.lpd_pagemap_decode(pagemap, rest, len(data) - 8, error) == 0
    assert (pagemap.nr_entries, pagemap.position) == (2, len(data))
