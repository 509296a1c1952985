"""A child has what was mapped at the fork, whatever was read next to the FORK."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import struct

import pytest

from lazypagesd.engine.worker import Worker
from tests.native.feeding import (
    FORK,
    IN_X,
    REMAP,
    REMOVE,
    SIZE,
    UNMAP,
    Fed,
    X,
    message,
    moved,
)
from tests.native.states import BASE, PAGE, Region
from tests.native.toucher import (
    UFFDIO_API,
    UFFDIO_REGISTER,
)


class Child:
    """A userfaultfd such as a FORK brings, of a child that has one place registered or not."""

    def __init__(self, uffd: int) -> None:
        self._memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.place = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._uffd = uffd
        fcntl.ioctl(uffd, UFFDIO_API, struct.pack("3Q", 0xAA, 0, 0))

    def register(self) -> None:
        fcntl.ioctl(self._uffd, UFFDIO_REGISTER, struct.pack("4Q", self.place, SIZE, 1, 0))


@pytest.fixture
def child(userfaultfd: int) -> Child:
    """Return a child that has not got its place."""
    return Child(userfaultfd)


FORK_FIRST = [False, True]


@pytest.mark.uffd
@pytest.mark.parametrize("fork_first", FORK_FIRST)
def test_unmapping_of_a_place_that_the_child_has_keeps_its_order(
    worker: Worker, child: Child, userfaultfd: int, fork_first: bool
) -> None:
    """What the child has where something was unmapped can have grown there before the fork."""
    child.register()
    messages = [
        message(FORK, userfaultfd),
        message(UNMAP, child.place, child.place + SIZE),
    ]
    region = Region(child.place, 2, 0, 0)
    with Fed(worker, [region], messages[:: 1 if fork_first else -1]) as fed:
        fed.wait_for_fork()
        assert fed.session.pointer.child_fd == userfaultfd
        assert fed.bits == ([0, 0] if fork_first else [1, 1])
        fed.finish()
        assert fed.bits == [1, 1]


@pytest.mark.uffd
def test_move_waits_for_a_fork_whose_child_has_not_seen_it(
    worker: Worker, child: Child, userfaultfd: int
) -> None:
    """What the child has where it was, and not where it went, was moved after the fork."""
    child.register()
    messages = [message(REMAP, child.place, BASE, SIZE), message(FORK, userfaultfd)]
    region = Region(child.place, 2, 0, 0)
    with Fed(worker, [region], messages) as fed:
        fed.wait_for_fork()
        assert fed.regions() == [region]
        fed.finish()
        assert fed.regions() == [moved(region, BASE)]


@pytest.mark.uffd
def test_move_that_stays_and_was_read_before_took_place_before(
    worker: Worker, child: Child, userfaultfd: int
) -> None:
    """MREMAP_DONTUNMAP leaves its range to the child as well, and its thread, which has gone on
    since it was read, may have kept from the child what it moved."""
    child.register()
    region = Region(child.place, 2, 0, 0)
    remap, fork = message(REMAP, child.place, BASE, SIZE), message(FORK, userfaultfd)
    with Fed(worker, [region], [fork], were_read=[remap]) as fed:
        fed.wait_for_fork()
        assert fed.regions() == [moved(region, BASE)]
        fed.finish()
        assert fed.regions() == [moved(region, BASE)]


@pytest.mark.uffd
@pytest.mark.parametrize("fork_first", FORK_FIRST)
def test_fork_waits_for_an_unmapping_if_the_child_has_not_got_the_place(
    worker: Worker, child: Child, userfaultfd: int, fork_first: bool
) -> None:
    """What the child has not got was unmapped before the fork, in whatever order that is read."""
    messages = [
        message(FORK, userfaultfd),
        message(UNMAP, child.place, child.place + SIZE),
    ]
    region = Region(child.place, 2, 0, 0)
    with Fed(worker, [region], messages[:: 1 if fork_first else -1]) as fed:
        fed.wait_for_fork()
        assert fed.bits == [1, 1]
        fed.finish()
        assert fed.bits == [1, 1]


@pytest.mark.uffd
def test_fork_changes_no_places_but_its_own(
    worker: Worker, child: Child, userfaultfd: int
) -> None:
    """A place that the child has, for it was taken again, does not put off who left it first."""
    child.register()
    far = BASE + 32 * PAGE
    in_x = IN_X._replace(start=child.place, first_bit=2)
    in_z = Region(BASE, 2, SIZE, 0)
    messages = [
        message(REMAP, child.place, BASE + 8 * PAGE, SIZE),
        message(REMAP, BASE, child.place, SIZE),
        message(REMAP, BASE + 8 * PAGE, far, SIZE),
        message(FORK, userfaultfd),
    ]
    with Fed(worker, sorted([in_z, in_x]), messages) as fed:
        fed.wait_for_fork()
        assert fed.regions() == sorted([moved(in_x, far), moved(in_z, child.place)])
        assert fed.bits == [0, 0, 0, 0]
        fed.finish()


@pytest.mark.uffd
def test_fork_holds_up_the_events_behind_it(
    worker: Worker, child: Child, userfaultfd: int
) -> None:
    """Until the session is told to resume, only what came before the fork has taken effect."""
    child.register()
    messages = [
        message(REMOVE, X, X + PAGE),
        message(FORK, userfaultfd),
        message(REMOVE, X + PAGE, X + SIZE),
    ]
    with Fed(worker, [IN_X], messages) as fed:
        fed.wait_for_fork()
        assert fed.bits == [1, 0]
        fed.finish()
        assert fed.bits == [1, 1]
