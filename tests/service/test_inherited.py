"""Descriptors that were left get the numbers that they had."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from lazypagesd.errors import SessionError
from lazypagesd.kernel import fdpass
from lazypagesd.kernel.descriptors import is_open
from lazypagesd.service import inherited

# Beyond all that is open here.
FIRST = 300


@pytest.fixture
def passed() -> Iterator[list[int]]:
    """Two numbers, and what is open under each of them: the two ends of a pipe."""
    ends = os.pipe()
    numbers = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FIRST) for end in ends]
    fdpass.close_all(ends)
    yield numbers
    for number in numbers:
        if is_open(number):
            os.close(number)


def test_numbers_may_cross(passed: list[int]) -> None:
    """One that was passed where another one was makes room for it."""
    one, other = passed
    before = os.fstat(one), os.fstat(other)
    os.write(other, b"to the reader")
    sockets, left = inherited.take({one: str(other), other: str(one)})
    assert (sockets, left) == ({}, {one, other})
    assert (os.fstat(other), os.fstat(one)) == before
    assert os.read(other, 100) == b"to the reader"


def test_number_that_is_in_use_is_refused(passed: list[int]) -> None:
    """Nothing that this process has opened is closed for what was left."""
    used = os.open(os.devnull, os.O_RDONLY)
    with os.fdopen(used), pytest.raises(SessionError, match=f"descriptor {used} was left to us"):
        inherited.take({passed[0]: str(used)})
    for number in range(passed[0], passed[0] + 10):
        if number != passed[1] and is_open(number):
            os.close(number)
