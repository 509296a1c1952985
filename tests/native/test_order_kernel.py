"""What the kernel tells of moves, and when; and that pages keep their bytes for all that."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lazypagesd.engine.session import Session
from lazypagesd.engine.state import State
from lazypagesd.engine.worker import Worker
from lazypagesd.native import lib
from lazypagesd.sources.file import FileSource
from lazypagesd.sources.testing import Short
from tests.native.feeding import (
    REMAP,
    SIZE,
    UNMAP,
    events,
)
from tests.native.states import PAGE, Region, c_regions, regions_of
from tests.native.toucher import (
    MAPPING,
    MREMAP_MAYMOVE_FIXED,
    READ_WRITE,
    Toucher,
)
from tests.native.waiting import wait_readable, wait_until

MAP_FIXED_NOREPLACE = 0x100000  # asm-generic/mman-common.h


@contextmanager
def racing() -> Iterator[tuple[Toucher, int, int]]:
    """Let one thread move two pages away and another move pages there, nobody reading; yield the
    process, and what to ask their results with."""
    while True:
        with Toucher(16) as toucher:
            if (begun := race(toucher)) is not None:
                yield toucher, *begun
                return


# None if the place was taken meanwhile, by what the process's interpreter has allocated.
def race(toucher: Toucher) -> tuple[int, int] | None:
    assert toucher.uffd is not None
    x, z = toucher.arena, toucher.arena + 8 * PAGE
    leaving = toucher.start("mremap", x, SIZE, SIZE, MREMAP_MAYMOVE_FIXED, toucher.reserved)
    wait_readable(toucher.uffd, "the first move's event")
    if toucher.call("mmap", x, SIZE, READ_WRITE, MAPPING | MAP_FIXED_NOREPLACE, -1, 0) != x:
        return None
    coming = toucher.start("mremap", z, SIZE, SIZE, MREMAP_MAYMOVE_FIXED, x)
    wait_until(lambda: toucher.nr_waiting_for_events() == 2, "two moves under way")
    return leaving, coming


@pytest.mark.uffd
def test_kernel_says_late_what_a_move_has_left() -> None:
    """The kernel queues the UNMAP of a moved range once its REMAP has been read, and so after
    another thread's move to that place."""
    with racing() as (toucher, leaving, coming):
        uffd = toucher.uffd
        assert uffd is not None
        x, y, z = toucher.arena, toucher.reserved, toucher.arena + 8 * PAGE
        assert events(uffd, 2) == [(REMAP, x, y, SIZE), (REMAP, z, x, SIZE)]
        assert lib.lpd_uffd_probe(uffd) < 0
        assert sorted(events(uffd, 2)) == [(UNMAP, x, x + SIZE, 0), (UNMAP, z, z + SIZE, 0)]
        assert (toucher.result(leaving), toucher.result(coming)) == (y, x)


@pytest.mark.uffd
def test_kernel_says_the_tail_of_a_move_before_its_echo() -> None:
    """A shrinking move queues the UNMAP of what it cuts off between its REMAP and its echo."""
    with Toucher(16) as toucher:
        uffd = toucher.uffd
        assert uffd is not None
        x, y = toucher.arena, toucher.reserved
        shrinking = toucher.start("mremap", x, SIZE, PAGE, MREMAP_MAYMOVE_FIXED, y)
        assert events(uffd, 3) == [
            (REMAP, x, y, PAGE),
            (UNMAP, x + PAGE, x + SIZE, 0),
            (UNMAP, x, x + PAGE, 0),
        ]
        assert toucher.result(shrinking) == y


@pytest.mark.uffd
def test_kernel_says_what_a_move_discards_before_the_move() -> None:
    """A move onto registered memory queues the UNMAP of all of its destination, and itself only
    once that has been read, though it has been done long since."""
    with Toucher(16) as toucher:
        uffd = toucher.uffd
        assert uffd is not None
        x, z = toucher.arena, toucher.arena + 8 * PAGE
        toucher.call("mprotect", x, SIZE, mmap.PROT_READ)
        moving = toucher.start("mremap", x, SIZE, SIZE, MREMAP_MAYMOVE_FIXED, z)
        wait_readable(uffd, "the event of what it discards")
        maps = Path(f"/proc/{toucher.pid}/maps").read_text()
        assert f"{z:x}-{z + SIZE:x} r--p" in maps
        assert events(uffd, 3) == [
            (UNMAP, z, z + SIZE, 0),
            (REMAP, x, z, SIZE),
            (UNMAP, x, x + SIZE, 0),
        ]
        assert toucher.result(moving) == z


@pytest.mark.uffd
def test_pages_moved_to_where_others_were_keep_their_bytes(worker: Worker) -> None:
    """Real moves, the second to where the first has left, bring every page where it belongs."""
    data = b"".join(bytes([i + 1]) * PAGE for i in range(16))
    with racing() as (toucher, leaving, coming), Short(data, len(data)) as file:
        x, y, z = toucher.arena, toucher.reserved, toucher.arena + 8 * PAGE
        source: FileSource = file.as_source()
        uffd = toucher.give_uffd()
        state = State.create("race", c_regions([Region(x, 16, 0, 0)]), 1, 16, 1)
        session = Session("race", uffd, state, [source])
        worker.attach(session)

        assert (toucher.result(leaving), toucher.result(coming)) == (y, x)
        assert toucher.call("read", x, 8) == [9, 10, 3, 4, 5, 6, 7, 8]
        assert toucher.call("read", y, 2) == [1, 2]
        assert [region.start for region in regions_of(state.pointer)] == [x, x + SIZE, z + SIZE, y]

        toucher.kill()
        session.request(lib.LPD_REQUEST_DETACH)
        detached: list[Session] = []
        while not detached:
            wait_readable(worker.report_fd, "the detached session")
            _, detached = worker.take_reports()
        session.close()
