"""Descriptors that were left are put back under the numbers that they had."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# In a process of its own, whose numbers are all to be had: WANTED are the names that what is open
# from 3 on has, each a file that says its name.
TAKE = """
import os, sys
from lazypagesd.service.inherited import take
names = sys.argv[1].split(",")
for i, name in enumerate(names):
    fd = os.memfd_create(name)
    os.dup2(fd, 100 + i)
    os.close(fd)
for i in range(len(names)):
    os.dup2(100 + i, 3 + i)
    os.close(100 + i)
sockets, left = take({3 + i: name for i, name in enumerate(names)})
for fd in sorted(left) + sorted(sockets):
    name = fd if fd in left else sockets[fd]
    print(name, os.readlink(f"/proc/self/fd/{fd}"), os.get_inheritable(fd))
print(len(os.listdir("/proc/self/fd")) - 1 - 3)
"""


def take(*names: str) -> list[str]:
    """Return what a process says that takes descriptors of these names."""
    command = [sys.executable, "-c", TAKE, ",".join(names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return [*done.stdout.splitlines(), *done.stderr.splitlines()[-1:]]


@pytest.mark.parametrize(
    "names",
    [
        ("5", "4", "3"),  # in a ring
        ("4", "5", "6", "7"),  # each where the next one is
        ("17", "300", "9"),
        ("handoff", "3", "4"),  # a socket where one was
    ],
)
def test_numbers_are_as_they_were(names: tuple[str, ...]) -> None:
    """Whatever stands in the way, each gets its number, and nothing else is left open."""
    *found, nr_open = take(*names)
    numbers = sorted((name for name in names if name.isdecimal()), key=int)
    others = [name for name in names if not name.isdecimal()]
    expected = [f"{name} /memfd:{name} (deleted) False" for name in numbers + others]
    assert found == expected
    assert nr_open == str(len(names))


def test_later_one_of_a_name_counts() -> None:
    """What is stored under a name once more has been stored instead."""
    assert take("9", "9")[0].startswith("9 /memfd:9")


def test_number_that_is_in_use_is_an_error() -> None:
    """Nothing of ours is closed for what was left."""
    *_, error = take("1")
    assert error.endswith("descriptor 1 was left to us, and its number is in use")


def test_standard_descriptors_are_never_among_what_is_left() -> None:
    """A daemon that is started without them opens them, so that no session gets their numbers."""
    readable, writable = os.pipe()
    script = "import os; from lazypagesd.service.inherited import take;"
    script += "os.closerange(0, 3); take({});"
    script += f"os.write({writable}, os.readlink('/proc/self/fd/0').encode())"
    subprocess.run([sys.executable, "-c", script], pass_fds=[writable], timeout=60, check=True)
    os.close(writable)
    assert os.read(readable, 100) == b"/dev/null"
    os.close(readable)
