"""Descriptors that another daemon has left, put back under the numbers that they had.

Whatever names a descriptor in what was left (records, FORK messages that were read) does so by its
number.  So each is passed under its number as its name, and gets that number again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping

from lazypagesd.errors import SessionError
from lazypagesd.kernel import fdpass
from lazypagesd.kernel.descriptors import is_open

MAX_STANDARD = 2


def take(passed: Mapping[int, str]) -> tuple[dict[int, str], set[int]]:
    """Put what was left where it was; return the sockets to listen at, by name, and the numbers.

    Sockets have names that are no numbers, and make room.  Nothing else may be open under a number
    that was left: call it before anything is opened.  Raises SessionError.
    """
    open_standard()
    left = {fd: int(name) for fd, name in passed.items() if name.isdecimal()}
    above = max([*passed, *left.values()], default=0) + 1
    # All of them first: one may be where another one was.
    aside = [(fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)) for fd in passed]
    fdpass.close_all(passed)
    taken: set[int] = set()
    for fd, copy in aside:
        if fd not in left:
            continue
        number = left[fd]
        # What is named twice was stored anew before it could be dropped: the later one counts.
        if number not in taken and is_open(number):
            raise SessionError(f"descriptor {number} was left to us, and its number is in use")
        os.dup2(copy, number, inheritable=False)
        os.close(copy)
        taken.add(number)
    return {copy: passed[fd] for fd, copy in aside if fd not in left}, taken


def open_standard() -> None:
    """See that 0, 1 and 2 are in use, as they are in every daemon that comes next."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= MAX_STANDARD:
        pass
    os.close(fd)
