"""The frame of an image file: its magic numbers, and the records one after the other."""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator
from typing import NoReturn

from lazypagesd.closing import Closing
from lazypagesd.errors import ImageError
from lazypagesd.images.directory import ImageDirectory

HEAD_MAGIC = 0x54564319  # before the type of every file but inventory.img, since img_version 2
U32 = struct.Struct("=I")

# The longest record known is mm-N.img's: some 50 bytes for each of at most 65,530 VMAs, by
# default.  Nothing is allocated for more than this, whatever a file claims, and sparse files claim
# it cheaply.
RECORD_MAX = 64 << 20


class Framing(enum.IntEnum):
    """inventory.img's img_version."""

    V1 = 1  # no head magic anywhere
    V1_1 = 2


class Magic(enum.IntEnum):
    """The type of an image file: CRIU's numbers, each the coordinates of a town."""

    INVENTORY = 0x58313116
    PSTREE = 0x50273030
    CORE = 0x55053847
    MM = 0x57492820
    PAGEMAP = 0x56084025


class ImageFile(Closing):
    """An image file open for reading, up to *position*; the file must not change meanwhile.

    Raises ImageError if it is missing or empty, or as soon as it is not what it should be.
    """

    def __init__(self, directory: ImageDirectory, file: str) -> None:
        self.name = directory.name(file)
        try:
            self.fd = directory.open(file)
        except FileNotFoundError:
            raise ImageError(self.name, "missing: is this all of a checkpoint?") from None
        self.size = os.fstat(self.fd).st_size
        self.position = 0
        if not self.size:
            self.close()
            raise ImageError(self.name, "empty: the dump did not finish")

    def read_magic(self, magic: Magic, framing: Framing) -> None:
        """Read over the magic numbers that a file of this type begins with."""
        head = framing is Framing.V1_1 and magic is not Magic.INVENTORY
        for want in (HEAD_MAGIC, magic) if head else (magic,):
            offset = self.position
            if (got := self._read_u32("a magic number")) != want:
                what = f"magic number {got:#010x}, not {int(want):#010x}: no image of this type"
                raise ImageError(self.name, what, offset=offset)

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Yield each record's offset, which is that of its size, and its payload."""
        while self.position < self.size:
            yield self.read_record()

    def read_record(self, longest: int = RECORD_MAX) -> tuple[int, bytes]:
        """Return the next record's offset and payload, of which there can be *longest* bytes."""
        offset = self.position
        size = self._read_u32("the size of a record")
        if size > (left := self.size - self.position):
            what = f"record of {size} bytes runs past the file ({left} left): it was cut off"
            raise ImageError(self.name, what, offset=offset)
        if size > longest:
            what = f"record of {size} bytes is longer than any known ({longest}); cannot serve"
            raise ImageError(self.name, what, offset=offset)
        return offset, self._read(size)

    def read_only_record(self, longest: int = RECORD_MAX) -> tuple[int, bytes]:
        """Return the one record, of at most *longest* bytes, of a file that has just one."""
        record = self.read_record(longest)
        if self.position != self.size:
            what = f"{self.size - self.position} bytes after the only record"
            raise ImageError(self.name, what, offset=self.position)
        return record

    def _read_u32(self, what: str) -> int:
        if (left := self.size - self.position) < U32.size:
            message = f"ends inside {what} ({left} bytes are left): the file was cut off"
            raise ImageError(self.name, message, offset=self.position)
        return int(U32.unpack(self._read(U32.size))[0])

    def _read(self, size: int) -> bytes:
        data = os.pread(self.fd, size, self.position)
        if len(data) != size:
            self.refuse_shorter(self.position + len(data))
        self.position += size
        return data

    def refuse_shorter(self, end: int) -> NoReturn:
        """Raise ImageError for a file that now ends at *end*, and was longer when opened."""
        what = f"became shorter while it was read (was {self.size} bytes)"
        raise ImageError(self.name, what, offset=end)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
