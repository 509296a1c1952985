"""pagemap-PID.img: what of a process is where, as an array for the C side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lazypagesd.images import wire
from lazypagesd.images.directory import ImageDirectory
from lazypagesd.images.framing import Framing, ImageFile, Magic
from lazypagesd.images.refusals import check, new_error
from lazypagesd.native import ffi, lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData

# What is read at once: more than a record, little beside the entries.  The file is not mapped, for
# a mapping of a file that someone truncates kills its reader.
CHUNK = 1 << 20
HEAD_MAX = 64

# Zeroing a million entries that are written at once costs as much as decoding half of them.
new_uncleared = ffi.new_allocator(should_clear_after_alloc=False)


@dataclass(frozen=True, slots=True)
class Entries:
    """The *count* entries of one pagemap file.

    *array* is a ``struct lpd_entry[]`` that lives as long as this object; *pages_size* is how many
    bytes of the pages file *pages_id* they speak for.
    """

    name: str
    pages_id: int
    array: CData
    count: int
    pages_size: int


def load_entries(directory: ImageDirectory, framing: Framing, pid: int) -> Entries:
    """Return the entries of process *pid*.

    Raises ImageError if any of them is not exactly as we know them.
    """
    with ImageFile(directory, f"pagemap-{pid}.img") as image:
        image.read_magic(Magic.PAGEMAP, framing)
        offset, payload = image.read_record(HEAD_MAX)
        head = wire.parse(wire.pagemap_head, payload, image.name, offset)
        wire.refuse_unknown(head, image.name, offset)
        count = int(_decode(image, ffi.NULL, 0).nr_entries)
        array = new_uncleared("struct lpd_entry[]", count)
        pagemap = _decode(image, array, count)
        return Entries(
            image.name, head.pages_id, array, int(pagemap.nr_entries), int(pagemap.pages_size)
        )


def _decode(image: ImageFile, array: CData, capacity: int) -> CData:
    """Decode the records from the image's position on; without an array only count them."""
    pagemap = ffi.new("struct lpd_pagemap *")
    pagemap.entries = array
    pagemap.capacity = capacity
    pagemap.file_size = image.size
    pagemap.position = image.position
    error = new_error()
    chunk = bytearray(min(CHUNK, image.size))
    buffer = ffi.from_buffer("uint8_t[]", chunk)  # keeps the chunk as long as C looks at it
    while pagemap.position < image.size:
        taken = os.preadv(image.fd, [chunk], pagemap.position)
        before = pagemap.position
        check(lib.lpd_pagemap_decode(pagemap, buffer, taken, error), error, [image.name])
        if pagemap.position == before:
            image.refuse_shorter(before)
    return pagemap
