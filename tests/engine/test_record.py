"""A record is replaced as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lazypagesd.engine.record import HEAD, Record, RecordFile, size_for
from lazypagesd.errors import SessionError

ROOM = 100


@pytest.fixture
def memory() -> bytearray:
    """Memory for a record, all zero."""
    return bytearray(size_for(ROOM))


def open_record(memory: bytearray) -> Record:
    """Return what another process would find there."""
    return Record(memoryview(memory))


def test_record_is_the_last_that_was_written(memory: bytearray) -> None:
    """Whoever reads finds the last message, and none before the first."""
    record = open_record(memory)
    assert record.read() is None
    for i in range(5):
        record.write(b"message %d" % i)
        assert open_record(memory).read() == b"message %d" % i
    record.write(b"")
    assert open_record(memory).read() == b""


def cuts(before: bytes, after: bytes) -> Iterator[bytearray]:
    """Yield memory as it may be found when whoever writes is killed: byte by byte, head last."""
    changed = [i for i in range(len(before)) if before[i] != after[i]]
    for nr_written in range(len(changed)):
        memory = bytearray(before)
        for i in sorted(changed, key=lambda i: i % (len(before) // 2) < HEAD.size)[:nr_written]:
            memory[i] = after[i]
        yield memory


def test_record_that_was_not_written_to_its_end_is_the_one_before(memory: bytearray) -> None:
    """Wherever writing stops, the message before it is still there."""
    record = open_record(memory)
    record.write(b"first")
    record.write(b"second, and longer")
    before = bytes(memory)
    record.write(b"third")
    found = {open_record(cut).read() for cut in cuts(before, bytes(memory))}
    assert found == {b"second, and longer"}


def test_record_that_has_no_room_is_refused(memory: bytearray) -> None:
    """What is too long changes nothing."""
    record = open_record(memory)
    record.write(b"first")
    with pytest.raises(OverflowError):
        record.write(bytes(len(memory) // 2))
    assert record.read() == b"first"


def test_record_file_is_found_by_its_descriptor() -> None:
    """A memfd is all that another process needs."""
    file = RecordFile.create("lazypagesd-test", ROOM)
    file.write(b"message")
    other = RecordFile(os.dup(file.fd))
    assert other.read() == b"message"
    other.close()
    file.close()


def test_record_that_is_broken_is_told_from_none(memory: bytearray) -> None:
    """Where something was written, and nothing of it is sound, that is no record that has yet to
    be written."""
    record = open_record(memory)
    assert record.read() is None
    record.write(b"first")
    memory[HEAD.size] ^= 1
    with pytest.raises(SessionError, match="its record is broken"):
        record.read()
