"""What is refused of a pagemap file; tests/native/test_pagemap.py has the decoding itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lazypagesd.engine.state import State
from lazypagesd.images import entries, wire
from lazypagesd.images.directory import ImageDirectory
from lazypagesd.images.entries import load_entries
from lazypagesd.images.framing import U32, Framing, Magic
from lazypagesd.images.mm import ADDR_LIMIT, PAGE_SIZE
from lazypagesd.images.writer import (
    PARENT,
    PRESENT,
    ImageEntry,
    ImageTask,
    anon_vma,
    frame,
    write_images,
)
from lazypagesd.native import ffi, lib
from tests.images.loading import BASE, addr, load, plain_task, refusal, write_plain

FIRST = 8 + 4 + 2  # the offset of the first entry: magic numbers, and the head's record


def write_entries(directory: Path, *given: ImageEntry) -> None:
    task = ImageTask(7, (anon_vma(BASE, 16),), given, bytes(16 * PAGE_SIZE))
    write_images(directory, [task])


def write_raw(directory: Path, payload: bytes) -> None:
    write_plain(directory)
    head = frame(Magic.PAGEMAP, [wire.pagemap_head(pages_id=1)])
    raw = head + U32.pack(len(payload)) + payload
    (directory / "pagemap-7.img").write_bytes(raw)


def refused(directory: Path, offset: int = FIRST) -> str:
    error = refusal(directory)
    assert (error.file, error.offset) == ("pagemap-7.img", offset)
    return error.what


@pytest.mark.parametrize("second", [addr(1), BASE - PAGE_SIZE])
def test_entries_are_refused_when_unsorted(tmp_path: Path, second: int) -> None:
    """Entries that overlap, or go backwards, name the second, and where it is."""
    write_entries(tmp_path, ImageEntry(BASE, 2), ImageEntry(second))
    size = (tmp_path / "pagemap-7.img").stat().st_size
    record = (size - FIRST) // 2
    assert f"{second:#x} begins before" in refused(tmp_path, FIRST + record)


def test_entry_is_refused_when_unaligned(tmp_path: Path) -> None:
    """An address inside a page is refused with its value."""
    write_entries(tmp_path, ImageEntry(BASE + 8))
    assert f"{BASE + 8:#x}" in refused(tmp_path)


@pytest.mark.parametrize(
    ("vaddr", "nr_pages"),
    [
        (ADDR_LIMIT, 1),
        (ADDR_LIMIT - PAGE_SIZE, 2),
        (2**64 - PAGE_SIZE, 2),
        (ADDR_LIMIT, 2**32 - 1),
    ],
)
def test_entry_is_refused_when_past_user_addresses(
    tmp_path: Path, vaddr: int, nr_pages: int
) -> None:
    """An entry that would end behind them is refused, without any sum that wraps."""
    write_entries(tmp_path, ImageEntry(vaddr, nr_pages))
    assert f"{vaddr:#x} runs past" in refused(tmp_path)


def test_last_page_that_loads_is_the_last_that_a_state_takes(tmp_path: Path) -> None:
    """Loading refuses what the hand-off would refuse: beyond this page no process has any."""
    last = ADDR_LIMIT - PAGE_SIZE
    write_images(
        tmp_path, [ImageTask(7, (anon_vma(last, 1),), (ImageEntry(last),), bytes(PAGE_SIZE))]
    )
    with load(tmp_path) as checkpoint:
        page_map = checkpoint.page_map(7)
        State.create("7", page_map.regions, page_map.nr_regions, page_map.nr_pages, 1).close()


def test_entry_may_have_all_pages_that_32_bits_count(tmp_path: Path) -> None:
    """An entry of 16 TiB is none too large; only its pages file is too short."""
    nr_pages = 2**32 - 1
    entry = ImageEntry(PAGE_SIZE, nr_pages)
    write_images(tmp_path, [ImageTask(7, (anon_vma(PAGE_SIZE, nr_pages),), (entry,))])
    assert f"0 of {nr_pages * PAGE_SIZE} bytes" in refusal(tmp_path).what


@pytest.mark.parametrize("nr_pages", [0, 2**32, 2**64 - 1])
def test_entry_is_refused_when_its_size_is_absurd(tmp_path: Path, nr_pages: int) -> None:
    """An entry has pages, and as many as 32 bits can count."""
    write_entries(tmp_path, ImageEntry(BASE, nr_pages))
    assert f"pagemap entry of {nr_pages} pages" in refused(tmp_path)


@pytest.mark.parametrize("flags", [0, 8, PRESENT | 16, PRESENT | PARENT])
def test_entry_is_refused_when_its_flags_are_unknown(tmp_path: Path, flags: int) -> None:
    """Flags that we do not know, that are none or that contradict each other are refused."""
    write_entries(tmp_path, ImageEntry(BASE, 1, flags))
    assert f"flags {flags:#x}" in refused(tmp_path)


def test_unknown_field_of_entry_is_refused(tmp_path: Path) -> None:
    """A field that is not known means a newer CRIU, and is named with its offset."""
    entry = wire.pagemap_entry(vaddr=BASE, compat_nr_pages=1).SerializeToString()
    write_raw(tmp_path, entry + b"\x30\x01")  # field 6, varint 1
    what = refused(tmp_path, FIRST + 4 + len(entry))
    assert what == "field 6 of pagemap entry is not known: written by a newer CRIU; cannot serve"


def test_unknown_field_of_head_is_refused(tmp_path: Path) -> None:
    """The head of a pagemap is not to have a field that is not known either."""
    write_plain(tmp_path)
    payload = b"\x08\x01\x10\x01"
    raw = frame(Magic.PAGEMAP, []) + U32.pack(len(payload)) + payload
    (tmp_path / "pagemap-7.img").write_bytes(raw)
    assert "field 2 of pagemap_head" in refused(tmp_path, 8)


def test_field_of_another_type_is_refused(tmp_path: Path) -> None:
    """A known field in another encoding is not taken for what it was."""
    write_raw(tmp_path, b"\x0d\0\0\0\0")  # field 1, fixed32
    assert "field 1 of pagemap entry is of another type" in refused(tmp_path, FIRST + 4)


@pytest.mark.parametrize(("payload", "field"), [(b"\x10\x01", 1), (b"\x08\x00", 2), (b"", 1)])
def test_required_field_is_missed(tmp_path: Path, payload: bytes, field: int) -> None:
    """An entry without one of its two required fields names it."""
    write_raw(tmp_path, payload)
    assert f"required field {field}" in refused(tmp_path)


@pytest.mark.parametrize("number", [b"\x80", b"\xff" * 10, b"\xff" * 9 + b"\x02"])
def test_number_is_refused_when_cut_off_or_too_long(tmp_path: Path, number: bytes) -> None:
    """A varint without an end, or over 64 bits, names its own offset."""
    write_raw(tmp_path, b"\x08" + number)
    assert "number cut off" in refused(tmp_path, FIRST + 5)


def test_record_is_refused_when_it_runs_past_the_file(tmp_path: Path) -> None:
    """A file that lost its end says so at the record that was cut."""
    write_entries(tmp_path, ImageEntry(BASE))
    size = (tmp_path / "pagemap-7.img").stat().st_size
    os.truncate(tmp_path / "pagemap-7.img", size - 1)
    assert f"record of {size - FIRST - 4} bytes runs past the file" in refused(tmp_path)


def test_hole_of_a_sparse_file_is_refused_before_its_records_are_counted(tmp_path: Path) -> None:
    """A file that is large for nothing makes nobody read it all, or allocate for what it claims.

    Zeros are the sizes of records of no bytes, each of which would be an entry of 24.
    """
    write_entries(tmp_path)
    with (tmp_path / "pagemap-7.img").open("r+b") as image:
        image.truncate(FIRST + (1 << 40))
    assert "required field 1" in refused(tmp_path)


def test_file_is_refused_when_it_ends_inside_a_size(tmp_path: Path) -> None:
    """Less than a record's size at the end is not overlooked."""
    write_entries(tmp_path)
    with (tmp_path / "pagemap-7.img").open("ab") as image:
        image.write(b"\x01\0\0")
    assert "3 bytes left" in refused(tmp_path)


def test_record_is_refused_when_longer_than_any_entry(tmp_path: Path) -> None:
    """A record need not fit the file only, but what an entry can be."""
    write_raw(tmp_path, bytes(lib.LPD_RECORD_MAX + 1))
    assert f"record of {lib.LPD_RECORD_MAX + 1} bytes is longer" in refused(tmp_path)


def test_pagemap_without_entries_is_an_empty_map(tmp_path: Path) -> None:
    """A process with nothing dumped has a page map of no regions."""
    write_entries(tmp_path)
    with load(tmp_path) as checkpoint:
        assert list(checkpoint.page_map(7)) == []
        assert checkpoint.nr_pages == 0


def test_records_cut_by_a_chunk_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one read ends and the next begins makes no difference."""
    write_images(tmp_path, [plain_task(nr_pages=64)])
    for size in range(64, 96):
        monkeypatch.setattr(entries, "CHUNK", size)
        with load(tmp_path) as checkpoint:
            assert checkpoint.nr_pages == 64


def test_pagemap_is_refused_when_it_shrinks_under_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pagemap that someone cuts while it is decoded is an error, and no endless loop."""
    write_plain(tmp_path)

    def preadv(fd: int, buffers: list[bytearray], offset: int) -> int:
        return 0

    monkeypatch.setattr(os, "preadv", preadv)
    assert "became shorter" in refused(tmp_path)


def test_entry_and_region_cost_64_bytes_at_most(tmp_path: Path) -> None:
    """What loading an entry needs is itself and the region that it may become, and no more."""
    write_images(tmp_path, [plain_task(nr_pages=64)])
    with ImageDirectory(os.open(tmp_path, os.O_RDONLY)) as directory:
        loaded = load_entries(directory, Framing.V1_1, 7)
    assert ffi.sizeof(loaded.array) == loaded.count * ffi.sizeof("struct lpd_entry")
    assert ffi.sizeof("struct lpd_entry") + ffi.sizeof("struct lpd_region") <= 64
