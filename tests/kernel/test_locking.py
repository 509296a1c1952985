"""Memory that stays in memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from lazypagesd.kernel import locking

PAGE = mmap.PAGESIZE


def locked_kib() -> int:
    """Return how much of this process is locked."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x[:5] == "VmLck"]
    return int(line.split()[1])


def test_range_is_kept_until_it_is_unmapped() -> None:
    """Its pages are locked as far as it goes, and no longer than it is there."""
    before = locked_kib()
    with mmap.mmap(-1, 4 * PAGE) as memory:
        view = ctypes.c_char.from_buffer(memory)
        assert locking.keep(ctypes.addressof(view), 4 * PAGE)
        assert locked_kib() == before + 4 * PAGE // 1024
        del view
    assert locked_kib() == before


def test_limit_is_no_error() -> None:
    """Beyond the limit nothing is locked, which is told, and nothing else happens."""
    program = f"""
import ctypes, mmap
from lazypagesd.kernel import locking
memory = mmap.mmap(-1, {PAGE})
print(locking.keep(ctypes.addressof(ctypes.c_char.from_buffer(memory)), {PAGE}))
"""

    # Root has no limit, unless the capability is beyond its bounds.
    bounded = ["setpriv", "--bounding-set=-ipc_lock"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*bounded, sys.executable, "-c", program],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0)),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "False\n"


def test_libraries_are_found_by_name() -> None:
    """Every mapping of such a file counts, and no other one, whatever its path has in it."""
    maps = (
        "7f0000000000-7f0000001000 r--p 00000000 08:01 7 /a dir/_native.abi3.so\n"
        "7f0000001000-7f0000003000 r-xp 00001000 08:01 7 /a dir/_native.abi3.so\n"
        "7f0000003000-7f0000004000 r-xp 00000000 08:01 8 /_native./other.so\n"
        "7f0000004000-7f0000005000 rw-p 00000000 00:00 0\n"
        "7f0000005000-7f0000006000 rw-p 00000000 00:00 0 [heap]\n"
    )
    assert list(locking.mapped(maps, ("_native.",))) == [
        (0x7F0000000000, 0x7F0000001000),
        (0x7F0000001000, 0x7F0000003000),
    ]


def test_own_code_is_kept() -> None:
    """What runs as C is locked as a whole."""
    assert locking.keep_code("libc.so", "libc-")
    entries = re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.M)
    of_libc = [entry for entry in entries if re.search(r"/libc(\.so|-)\S*$", entry, flags=re.M)]
    assert of_libc
    assert all(re.search(r"^VmFlags:.* lo\b", entry, flags=re.M) for entry in of_libc)
