"""Rewrite the pagemap and the pages of one process of a real dump, byte by byte.

Some facts about these files that this rests on: a pagemap is two words of magic, then records of a
32-bit length and a protobuf message each; the first record names the pages file, each other one is
a range of pages; a range that is PRESENT has its bytes in the pages file, after those of the
present ranges before it.  CRIU 4.1 counts a range's pages in a 32-bit field, 4.2 in a 64-bit one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

PAGE_SIZE = 4096
PE_PARENT = 1
PE_LAZY = 2
PE_PRESENT = 4

_MAGIC = bytes.fromhex("19435654 25400856")  # 0x54564319 0x56084025, from criu dump
_PAGES_ID = 1
_VADDR, _NR_PAGES_32, _FLAGS, _NR_PAGES_64 = 1, 2, 4, 5


@dataclass(frozen=True, slots=True)
class Entry:
    """A range of pages and, where it is PRESENT, its bytes."""

    addr: int
    nr_pages: int
    flags: int
    data: bytes = b""

    def pages(self) -> Iterator[Entry]:
        """Cut it into single pages."""
        for i in range(self.nr_pages):
            data = self.data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
            yield replace(self, addr=self.addr + i * PAGE_SIZE, nr_pages=1, data=data)


def read(images: Path, pid: int) -> list[Entry]:
    """Return the entries of *pid*."""
    content = (images / f"pagemap-{pid}.img").read_bytes()
    assert content.startswith(_MAGIC)
    head, *records = _records(content[len(_MAGIC) :])
    pages = (images / f"pages-{_fields(head)[_PAGES_ID]}.img").read_bytes()
    entries = []
    offset = 0
    for fields in map(_fields, records):
        nr_pages = fields.get(_NR_PAGES_64, fields[_NR_PAGES_32])
        entry = Entry(fields[_VADDR], nr_pages, fields[_FLAGS])
        if entry.flags & PE_PRESENT:
            size = entry.nr_pages * PAGE_SIZE
            entry = replace(entry, data=pages[offset : offset + size])
            offset += size
        entries.append(entry)
    assert offset == len(pages)
    return entries


def write(images: Path, pid: int, entries: list[Entry], *, pages_id: int = 1) -> None:
    """Make *entries* those of *pid*."""
    records = [_message({_PAGES_ID: pages_id})]
    for entry in entries:
        fields = {_VADDR: entry.addr, _NR_PAGES_32: entry.nr_pages, _FLAGS: entry.flags}
        records.append(_message(fields))
    framed = (struct.pack("<I", len(record)) + record for record in records)
    (images / f"pagemap-{pid}.img").write_bytes(_MAGIC + b"".join(framed))
    present = (entry.data for entry in entries if entry.flags & PE_PRESENT)
    (images / f"pages-{pages_id}.img").write_bytes(b"".join(present))


def lose_lazy_pages(images: Path, pid: int) -> None:
    """Leave of the lazy ranges what ``criu dump --lazy-pages`` leaves: no PRESENT, no bytes."""
    entries = read(images, pid)
    lost = [
        replace(entry, flags=PE_LAZY, data=b"") if entry.flags & PE_LAZY else entry
        for entry in entries
    ]
    write(images, pid, lost)


def split_into_parent(
    images: Path, parent: Path, pid: int, belongs_to_parent: Callable[[int], bool]
) -> None:
    """Move those lazy pages to *parent* whose number in the dump *belongs_to_parent*.

    What is left in *images* are PARENT|LAZY ranges, as after a dump with ``--prev-images-dir``.
    """
    child: list[Entry] = []
    moved: list[Entry] = []
    number = 0
    for entry in read(images, pid):
        if not entry.flags & PE_LAZY:
            child.append(entry)
            continue
        for page in entry.pages():
            if belongs_to_parent(number):
                moved.append(page)
                page = replace(page, flags=PE_PARENT | PE_LAZY, data=b"")
            child.append(page)
            number += 1
    parent.mkdir()
    write(parent, pid, moved)
    write(images, pid, _join(child))
    (images / "parent").symlink_to(Path("..") / parent.name)


def _join(entries: list[Entry]) -> list[Entry]:
    joined: list[list[Entry]] = []
    for entry in entries:
        last = joined[-1][-1] if joined else None
        if last and (last.addr + last.nr_pages * PAGE_SIZE, last.flags) == (
            entry.addr,
            entry.flags,
        ):
            joined[-1].append(entry)
        else:
            joined.append([entry])
    return [
        replace(
            run[0],
            nr_pages=sum(entry.nr_pages for entry in run),
            data=b"".join(entry.data for entry in run),
        )
        for run in joined
    ]


def _records(content: bytes) -> Iterator[bytes]:
    while content:
        (size,) = struct.unpack_from("<I", content)
        yield content[4 : 4 + size]
        content = content[4 + size :]


def _fields(message: bytes) -> dict[int, int]:
    # Every field of the messages here is a varint.
    numbers = _varints(message)
    return {key >> 3: next(numbers) for key in numbers}


def _varints(message: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in message:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value = shift = 0


def _message(fields: dict[int, int]) -> bytes:
    return b"".join(_varint(number << 3) + _varint(value) for number, value in fields.items())


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
