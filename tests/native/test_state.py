"""How a state is laid out, checked and copied."""

from __future__ import annotations

import array
import errno
import itertools
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from lazypagesd.engine.state import State
from lazypagesd.engine.statistics import Counters
from lazypagesd.native import ffi, lib
from tests.native.states import (
    BASE,
    PAGE,
    Memory,
    Region,
    bits_of,
    c_regions,
    mend_checksum,
    regions_of,
)

USER_SPACE_END = 0x7FFFFFFFF000
TWO = [Region(BASE, 2, 0, 0), Region(BASE + 8 * PAGE, 3, 2 * PAGE, 2)]

READ_IN_ANOTHER_PROCESS = """
import sys
from lazypagesd.engine.state import State
from lazypagesd.native import lib
from tests.native.states import regions_of
state = State(int(sys.argv[1]), int(sys.argv[2]))
print(lib.lpd_state_check(state.pointer, int(sys.argv[2])), regions_of(state.pointer))
"""


@pytest.mark.parametrize(
    ("what", "regions"),
    [
        ("unsorted", [Region(BASE + 8 * PAGE, 1, 0, 0), Region(BASE, 1, 0, 1)]),
        ("overlapping", [Region(BASE, 2, 0, 0), Region(BASE + PAGE, 1, 0, 2)]),
        ("unaligned start", [Region(BASE + 8, 1, 0, 0)]),
        ("unaligned offset", [Region(BASE, 1, 512, 0)]),
        ("empty", [Region(BASE, 1, 0, 0), Region(BASE + 8 * PAGE, 0, 0, 1)]),
        ("ends past user space", [Region(USER_SPACE_END - PAGE, 2, 0, 0)]),
        ("starts past user space", [Region(USER_SPACE_END, 1, 0, 0)]),
        ("ends past 2^64", [Region(2**64 - PAGE, 2, 0, 0)]),
        ("first bit not zero", [Region(BASE, 1, 0, 1)]),
        ("bits not in order", [Region(BASE, 2, 0, 0), Region(BASE + 8 * PAGE, 1, 0, 1)]),
        ("no such source", [Region(BASE, 1, 0, 0, source=1)]),
    ],
)
def test_init_refuses_bad_regions(what: str, regions: list[Region]) -> None:
    """Regions that are not sorted, disjoint, aligned and in user space are refused."""
    assert Memory(8).init(regions) == -errno.EINVAL, what


@pytest.mark.parametrize("nr_pages", [4, 6])
def test_init_refuses_a_wrong_number_of_pages(nr_pages: int) -> None:
    """Regions that are not of as many pages as is said are refused."""
    assert Memory(8).init(TWO, nr_pages=nr_pages) == -errno.EINVAL


def test_init_refuses_an_unknown_protocol() -> None:
    """A message format that nobody can read is refused."""
    assert Memory(5).init(TWO, protocol=99) == -errno.EPROTONOSUPPORT


def test_init_makes_a_state_that_passes_the_check() -> None:
    """A new state has its regions, misses every page, has done nothing and passes its check."""
    state = Memory.of(TWO)
    assert lib.lpd_state_check(state.pointer, state.size) == 0
    assert regions_of(state.pointer) == TWO
    assert (state.pointer.nr_missing, state.pointer.released) == (5, 0)
    assert bits_of(state.pointer) == [0] * 5
    counters = Counters.read(state.pointer)
    assert counters == replace(Counters.total([]), nr_pages=5, nr_missing=5)


@pytest.mark.parametrize("nr_pages", [0, 1, 64, 65, 4096 * 8, 4096 * 8 + 1, 10**9])
def test_size_has_room_for_the_worst_case(nr_pages: int) -> None:
    """Two bitmaps and two tables with a region for every page fit, at page boundaries."""
    bits, table = -(-nr_pages // 64) * 8, nr_pages * ffi.sizeof("struct lpd_region")
    size = lib.lpd_state_size(nr_pages)
    assert size % PAGE == 0
    assert size >= ffi.sizeof("struct lpd_state") + 2 * bits + 2 * table


def test_init_accepts_no_regions() -> None:
    """A process that has nothing to be filled has a state, too."""
    state = Memory.of([])
    assert lib.lpd_state_check(state.pointer, state.size) == 0
    assert lib.lpd_state_find(state.pointer, BASE) == ffi.NULL


def test_check_refuses_what_is_no_state() -> None:
    """Another magic is told from damage."""
    state = Memory.of(TWO)
    state.pointer.magic += 1
    assert lib.lpd_state_check(state.pointer, state.size) == -errno.EPROTO


@pytest.mark.parametrize("version", [lib.LPD_STATE_OLDEST - 1, lib.LPD_STATE_VERSION + 1])
def test_check_refuses_another_version(version: int) -> None:
    """One that is too old or too new is told from damage, if its checksum says so."""
    state = Memory.of(TWO)
    state.pointer.version = version
    assert lib.lpd_state_check(state.pointer, state.size) == -errno.EBADMSG
    mend_checksum(state.pointer)
    assert lib.lpd_state_check(state.pointer, state.size) == -errno.EPROTONOSUPPORT


def test_check_refuses_a_mapping_too_small_for_a_state() -> None:
    """Nothing is read of a mapping that ends before the fixed part does."""
    assert lib.lpd_state_check(Memory.of(TWO).pointer, 64) == -errno.EPROTO


@pytest.mark.parametrize("change", [-PAGE, PAGE])
def test_check_refuses_another_size(change: int) -> None:
    """A memfd that was cut, or grew, is refused."""
    state = Memory.of(TWO)
    assert lib.lpd_state_check(state.pointer, state.size + change) == -errno.EBADMSG


def test_check_refuses_any_flipped_bit_of_the_fixed_part() -> None:
    """Whichever bit that init wrote once is flipped, the state is refused."""
    state = Memory.of(TWO)
    size = ffi.offsetof("struct lpd_state", "commit")
    fixed = ffi.cast("uint8_t *", state.pointer)
    for byte, bit in itertools.product(range(size), range(8)):
        fixed[byte] ^= 1 << bit
        assert lib.lpd_state_check(state.pointer, state.size) < 0, (byte, bit)
        fixed[byte] ^= 1 << bit
    assert lib.lpd_state_check(state.pointer, state.size) == 0


@pytest.mark.parametrize(
    ("what", "commit"), [("regions", 6), ("cursor", 2 | (lib.LPD_MAX_MESSAGES + 1) << 48)]
)
def test_check_refuses_a_commit_out_of_bounds(what: str, commit: int) -> None:
    """More regions than pages, or more messages than there is room for, are refused."""
    state = Memory.of(TWO)
    state.pointer.commit = commit
    assert lib.lpd_state_check(state.pointer, state.size) == -errno.EBADMSG, what


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start", BASE + 8),  # not aligned
        ("start", BASE + 9 * PAGE),  # overlaps the second
        ("start", 2**64 - PAGE),
        ("nr_pages", 0),
        ("nr_pages", 2**32 - 1),
        ("offset", 512),
        ("offset", 2**63),  # no file is so long
        ("offset", 2**63 - PAGE),  # its end is not
        ("first_bit", 4),  # the second of its two pages has none
        ("first_bit", 2**64 - 1),
        ("source", 1),
    ],
)
def test_check_refuses_a_region_out_of_bounds(field: str, value: int) -> None:
    """No region that is left behind leads to a page, a bit or a source that is not there."""
    state = Memory.of(TWO)
    nr_regions = ffi.new("uint64_t *")
    region = ffi.cast("struct lpd_region *", lib.lpd_state_regions(state.pointer, nr_regions))
    setattr(region, field, value)
    assert lib.lpd_state_check(state.pointer, state.size) == -errno.EBADMSG


def test_check_refuses_more_pages_in_regions_than_there_are() -> None:
    """Regions that share bits could be cut by moves into more than a table has room for."""
    state = Memory.of(TWO)
    nr_regions = ffi.new("uint64_t *")
    regions = ffi.cast("struct lpd_region *", lib.lpd_state_regions(state.pointer, nr_regions))
    regions[0].nr_pages = 3
    assert lib.lpd_state_check(state.pointer, state.size) == -errno.EBADMSG


def test_check_refuses_an_order_out_of_bounds() -> None:
    """Each message that has taken effect is one of the buffer's; what follows is not looked at."""
    state = Memory.of(TWO)
    state.pointer.commit = len(TWO) | 2 << 48
    state.pointer.order[2] = lib.LPD_MAX_MESSAGES
    assert lib.lpd_state_check(state.pointer, state.size) == 0
    state.pointer.order[1] = lib.LPD_MAX_MESSAGES
    assert lib.lpd_state_check(state.pointer, state.size) == -errno.EBADMSG


def test_check_refuses_more_missing_pages_than_there_are() -> None:
    """Whoever goes on must not wait for pages that no region has."""
    state = Memory.of(TWO)
    state.pointer.nr_missing = 6
    assert lib.lpd_state_check(state.pointer, state.size) == -errno.EBADMSG


def test_check_accepts_what_moves_and_forks_leave() -> None:
    """Regions whose bits are no longer in order, or fewer than pages, are a state as well."""
    state = Memory.of(TWO)
    lib.lpd_state_remap(state.pointer, BASE, BASE + 20 * PAGE, PAGE, 1)
    lib.lpd_state_remap(state.pointer, BASE + 20 * PAGE, BASE + 9 * PAGE, PAGE, 2)
    assert [region.first_bit for region in regions_of(state.pointer)] == [1, 2, 0, 4]
    assert lib.lpd_state_check(state.pointer, state.size) == 0


def test_state_can_be_read_by_another_process(repository: object) -> None:
    """A process that is given the memfd finds the same regions in it."""
    state = State.create("test", c_regions(TWO), 2, 5, 1)
    lib.lpd_state_remap(state.pointer, BASE, BASE + 4 * PAGE, PAGE, 0)
    size = state.pointer.size
    arguments = [READ_IN_ANOTHER_PROCESS, str(state.fd), str(size)]
    printed = subprocess.run(
        [sys.executable, "-c", *arguments],
        cwd=str(repository),
        pass_fds=[state.fd],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert printed.strip() == f"0 {regions_of(state.pointer)}"
    state.close()


def test_fork_copies_what_became_of_the_parent() -> None:
    """A child's state has its parent's pages, filled, moved or unmapped, and counts for itself."""
    parent = Memory.of(TWO)
    lib.lpd_state_mark(parent.pointer, BASE, BASE + PAGE)
    lib.lpd_state_remap(parent.pointer, BASE + 8 * PAGE, BASE + 4 * PAGE, PAGE, 3)
    lib.lpd_state_unmap(parent.pointer, BASE + 9 * PAGE, BASE + 11 * PAGE)
    parent.pointer.released = 1
    parent.pointer.counters.faults = 7

    child = Memory(5)
    lib.lpd_state_fork(child.pointer, parent.pointer)

    assert lib.lpd_state_check(child.pointer, child.size) == 0
    assert regions_of(child.pointer) == regions_of(parent.pointer)
    assert bits_of(child.pointer) == bits_of(parent.pointer) == [1, 0, 0, 1, 1]
    assert (child.pointer.nr_missing, child.pointer.released) == (2, 1)
    assert child.pointer.counters.faults == 0
    assert child.pointer.commit >> 48 == 0
    assert not lib.lpd_state_occupied(child.pointer, BASE + 9 * PAGE, BASE + 11 * PAGE)
    assert lib.lpd_state_occupied(child.pointer, BASE + 4 * PAGE, BASE + 5 * PAGE)


def test_fork_leaves_the_parent_its_own() -> None:
    """What is filled in the child is still missing in the parent."""
    parent, child = Memory.of(TWO), Memory(5)
    lib.lpd_state_fork(child.pointer, parent.pointer)
    lib.lpd_state_mark(child.pointer, BASE, BASE + PAGE)
    assert (child.pointer.nr_missing, parent.pointer.nr_missing) == (4, 5)


def test_state_of_a_million_regions_is_sparse() -> None:
    """A state takes no more than 64 bytes of memory a region."""
    nr_regions = 1_000_000
    numbers = range(nr_regions)
    raw = array.array("Q", bytes(nr_regions * 32))
    raw[0::4] = array.array("Q", (BASE + 2 * PAGE * i for i in numbers))
    raw[1::4] = array.array("Q", (PAGE * i for i in numbers))
    raw[2::4] = array.array("Q", numbers)
    raw[3::4] = array.array("Q", [1]) * nr_regions  # one page, source 0
    regions = ffi.from_buffer("struct lpd_region[]", raw)

    state = State.create("million", regions, nr_regions, nr_regions, 1)

    assert os.fstat(state.fd).st_blocks * 512 <= 64 * nr_regions
    assert lib.lpd_state_find(state.pointer, BASE + 2 * PAGE * 999_999).first_bit == 999_999
    state.close()
