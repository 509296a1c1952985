"""Huge pages for a test: of a pool, or as far as vm.nr_overcommit_hugepages allows."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.native import lib

# asm-generic/mman.h, where Python's mmap has no name for it
MAP_HUGETLB = 0x40000

# Pages of 4 KiB in one.
HUGE = lib.LPD_HUGE_SIZE // PAGE_SIZE
OVERCOMMIT = Path("/proc/sys/vm/nr_overcommit_hugepages")
POOL = Path("/proc/sys/vm/nr_hugepages")
# What one test needs at most, children included.
NR_HUGE = 64


@pytest.fixture(scope="module")
def huge_pages() -> Iterator[None]:
    """Let there be huge pages for the tests of a module, and for no other's at the same time."""
    with OVERCOMMIT.open() as setting:
        fcntl.flock(setting, fcntl.LOCK_EX)
        before = setting.read()
        try:
            OVERCOMMIT.write_text(str(NR_HUGE))
        except OSError as error:
            pytest.skip(f"{OVERCOMMIT}: {error.strerror}")
        yield
        OVERCOMMIT.write_text(before)


@contextlib.contextmanager
def pool(nr_pages: int) -> Iterator[None]:
    """Let there be so many more for sure, and nobody else test with huge pages meanwhile; OSError
    if there cannot be."""
    with OVERCOMMIT.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = POOL.read_text()
        try:
            wanted = int(before) + nr_pages
            POOL.write_text(str(wanted))
            if int(POOL.read_text()) < wanted:
                raise OSError(errno.ENOMEM, "no memory for so many huge pages", os.fspath(POOL))
            yield
        finally:
            POOL.write_text(before)


@contextlib.contextmanager
def none_free() -> Iterator[None]:
    """Let there be no further one for anybody."""
    OVERCOMMIT.write_text("0")
    try:
        yield
    finally:
        OVERCOMMIT.write_text(str(NR_HUGE))
