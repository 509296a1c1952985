"""A message in shared memory, which is replaced as a whole or not at all.

There are two places for it, each with a head; the sound one that was written later counts.  So
whoever is killed while writing leaves the message that was there before.
"""

from __future__ import annotations

import os
import struct
import zlib

from lazypagesd.engine.memory import Memory
from lazypagesd.errors import SessionError

# Which of the two is newer, its length, and the checksum of all that.
HEAD = struct.Struct("=QII")
PAGE_SIZE = 4096


def size_for(nr_bytes: int) -> int:
    """Return how much memory a message takes that may grow to *nr_bytes*."""
    return -(-2 * (HEAD.size + nr_bytes) // PAGE_SIZE) * PAGE_SIZE


class Record:
    """A message in *memory*, of size_for() bytes."""

    def __init__(self, memory: memoryview) -> None:
        """Take the message that is there, if there is one.  Takes ownership of *memory*."""
        self._memory = memory
        half = len(memory) // 2
        self._places = memory[:half], memory[half:]

    def read(self) -> bytes | None:
        """Return the message, or None if there is none yet.  Raises SessionError if it is
        broken."""
        found = [each for place in self._places if (each := self._read(place))]
        if found:
            return max(found)[1]
        # Whoever was killed while writing the first one has left no head.
        if any(any(place[: HEAD.size]) for place in self._places):
            raise SessionError("its record is broken")
        return None

    def write(self, message: bytes) -> None:
        """Replace the message.  Raises OverflowError if there is no room for it."""
        found = [self._read(place) for place in self._places]
        numbers = [each[0] if each else 0 for each in found]
        place = self._places[numbers.index(min(numbers))]
        if HEAD.size + len(message) > len(place):
            raise OverflowError(f"a record of {len(message)} bytes in {len(place)}")
        # First of all the head that is no more, so that no old head is beside new bytes.
        place[: HEAD.size] = bytes(HEAD.size)
        place[HEAD.size : HEAD.size + len(message)] = message
        number = max(numbers) + 1
        place[: HEAD.size] = HEAD.pack(number, len(message), checksum(number, message))

    def close(self) -> None:
        """Give the memory back."""
        for place in self._places:
            place.release()
        self._memory.release()

    def _read(self, place: memoryview) -> tuple[int, bytes] | None:
        number, length, expected = HEAD.unpack_from(place)
        if not number or length > len(place) - HEAD.size:
            return None
        message = bytes(place[HEAD.size : HEAD.size + length])
        return (number, message) if checksum(number, message) == expected else None


def checksum(number: int, message: bytes) -> int:
    """Return what tells a message that was written to its end."""
    return zlib.crc32(message, zlib.crc32(HEAD.pack(number, len(message), 0)))


class RecordFile:
    """A record in a memfd of its own.  Owns *fd* until close()."""

    def __init__(self, fd: int) -> None:
        """Map what is in *fd*.  Takes ownership of it, unless it raises."""
        self.fd = fd
        self._memory = Memory(fd)
        self._record = Record(self._memory.view())

    @classmethod
    def create(cls, name: str, nr_bytes: int) -> RecordFile:
        """Make one without a message, called *name*, for messages of up to *nr_bytes*."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, size_for(nr_bytes))
            return cls(fd)
        except OSError:
            os.close(fd)
            raise

    def read(self) -> bytes | None:
        """Return the message, or None if there is none yet.  Raises SessionError if it is
        broken."""
        return self._record.read()

    def write(self, message: bytes) -> None:
        """Replace the message.  Raises OverflowError if there is no room for it."""
        self._record.write(message)

    def unmap(self) -> None:
        """Give up the mapping alone; *fd* is the caller's."""
        self._record.close()
        self._memory.close()

    def close(self) -> None:
        """Unmap and close."""
        self.unmap()
        os.close(self.fd)
