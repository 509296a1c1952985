"""What CRIU wants to find in images beside what lazypagesd.images.writer writes.

Fields of mm-PID.img that CRIU calls required are no part of our subset of its messages, so they
are encoded here: all numbers, none of which means anything to whoever serves pages.  A pagemap
counts pages in the field that CRIU 4.1 knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lazypagesd.images import wire
from lazypagesd.images.framing import HEAD_MAGIC, U32, Magic
from lazypagesd.images.mm import Vma
from lazypagesd.images.writer import ImageTask, frame

MM_NUMBERS = range(1, 13)  # mm_start_code to exe_file_id
MM_VMAS = 14
# pgoff, shmid, and fd, which is none: -1, in zigzag.
VMA_REST = {3: 0, 4: 0, 8: 1}


def varint(value: int) -> bytes:
    """Return a number as protobuf has it."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def numbers(fields: dict[int, int]) -> bytes:
    """Return fields that are numbers."""
    return b"".join(varint(number << 3) + varint(value) for number, value in fields.items())


def message(number: int, payload: bytes) -> bytes:
    """Return a field that is a message."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def complete(directory: Path, task: ImageTask) -> None:
    """Write the images of *task* again such that ``criu lazy-pages`` takes them."""
    write_mm(directory / f"mm-{task.pid}.img", task.vmas)
    entries = (
        wire.pagemap_entry(vaddr=e.vaddr, compat_nr_pages=e.nr_pages, flags=e.flags)
        for e in task.entries
    )
    pagemap = frame(Magic.PAGEMAP, [wire.pagemap_head(pages_id=task.pages_id), *entries])
    (directory / f"pagemap-{task.pid}.img").write_bytes(pagemap)


def write_mm(path: Path, vmas: Iterable[Vma]) -> None:
    """Write all that CRIU wants to be there."""
    payload = numbers(dict.fromkeys(MM_NUMBERS, 0))
    for vma in vmas:
        ours = wire.vma_entry(
            start=vma.start, end=vma.end, prot=vma.prot, flags=vma.flags, status=vma.status
        )
        payload += message(MM_VMAS, ours.SerializeToString() + numbers(VMA_REST))
    words = (HEAD_MAGIC, Magic.MM, len(payload))
    path.write_bytes(b"".join(map(U32.pack, words)) + payload)
