"""Events take effect in the order in which they took place, which is not that of reading.

Most tests feed a session its messages through a pipe, which stands for the userfaultfd: the order
in which threads come to queue their events cannot be made certain, that in a pipe can.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from lazypagesd.engine.session import Session
from lazypagesd.engine.state import State
from lazypagesd.engine.worker import Worker
from lazypagesd.native import ffi, lib
from lazypagesd.sources.file import FileSource
from lazypagesd.sources.testing import Short
from tests.native.states import BASE, PAGE, Region, bits_of, c_regions, nr_pages_of, regions_of
from tests.native.toucher import (
    MAPPING,
    MREMAP_MAYMOVE_FIXED,
    READ_WRITE,
    UFFDIO_API,
    UFFDIO_REGISTER,
    Toucher,
)
from tests.native.waiting import wait_readable, wait_until

FORK, REMAP, REMOVE, UNMAP = 0x13, 0x14, 0x15, 0x16  # linux/userfaultfd.h
SIZE = 2 * PAGE

# Three places, of which two have image pages: X those of bits 0 and 1, Z those of 2 and 3.
X, Y, Z = BASE, BASE + 8 * PAGE, BASE + 16 * PAGE
IN_X, IN_Z = Region(X, 2, 0, 0), Region(Z, 2, SIZE, 2)


def message(event: int, *arguments: int) -> bytes:
    """Return a struct uffd_msg."""
    return struct.pack("B7x3Q", event, *arguments, *(0,) * (3 - len(arguments)))


def moved(region: Region, to: int) -> Region:
    return region._replace(start=to)


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Run a worker."""
    worker = Worker(0)
    worker.start()
    yield worker
    worker.stop()


class Fed:
    """A session that has *messages* to read at once, and no address space."""

    def __init__(self, worker: Worker, regions: list[Region], messages: list[bytes]) -> None:
        self._worker = worker
        state = State.create("fed", c_regions(regions), len(regions), nr_pages_of(regions), 1)
        readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.write(writable, b"".join(messages))
        self.session = Session("fed", readable, state, [])
        self._writable = writable
        worker.attach(self.session)

    def __enter__(self) -> Fed:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._writable)
        self.session.close()

    @property
    def bits(self) -> list[int]:
        return bits_of(self.session.state.pointer)

    def regions(self) -> list[Region]:
        return regions_of(self.session.state.pointer)

    def wait_for_fork(self) -> None:
        """Wait until the session has paused for a FORK."""
        wait_readable(self._worker.report_fd, "the fork's report")
        [(session, status)], _ = self._worker.take_reports()
        assert (session, status) == (self.session, lib.LPD_STATUS_FORKED)

    def finish(self) -> None:
        """Let every message take effect, and have the session for oneself."""
        self.session.request(lib.LPD_REQUEST_RESUME | lib.LPD_REQUEST_DETACH)
        detached: list[Session] = []
        while not detached:
            wait_readable(self._worker.report_fd, "the detached session")
            _, detached = self._worker.take_reports()


def served(worker: Worker, regions: list[Region], *messages: bytes) -> Fed:
    """Return a session on which all *messages* have taken effect."""
    fed = Fed(worker, regions, list(messages))
    fed.finish()
    return fed


def test_move_waits_for_the_unmapping_that_made_room(worker: Worker) -> None:
    """A move read before the UNMAP of what was in its place loses nothing."""
    with served(
        worker, [IN_X, IN_Z], message(REMAP, Z, X, SIZE), message(UNMAP, X, X + SIZE)
    ) as fed:
        assert fed.regions() == [moved(IN_Z, X)]
        assert fed.bits == [1, 1, 0, 0]


def test_move_waits_for_the_move_that_made_room(worker: Worker) -> None:
    """A move read before another that left its place finds that place empty."""
    with served(
        worker, [IN_X, IN_Z], message(REMAP, Z, X, SIZE), message(REMAP, X, Y, SIZE)
    ) as fed:
        assert fed.regions() == [moved(IN_Z, X), moved(IN_X, Y)]
        assert fed.bits == [0, 0, 0, 0]


def test_moves_wait_for_each_other_in_a_row(worker: Worker) -> None:
    """Three moves read the wrong way round, each to where the next was, take effect in turn."""
    in_y = Region(Y, 2, 2 * SIZE, 2)
    in_z = IN_Z._replace(first_bit=4)
    far = BASE + 32 * PAGE
    messages = [
        message(REMAP, X, Y, SIZE),
        message(REMAP, Y, Z, SIZE),
        message(REMAP, Z, far, SIZE),
    ]
    with served(worker, [IN_X, in_y, in_z], *messages) as fed:
        assert fed.regions() == [moved(IN_X, Y), moved(in_y, Z), moved(in_z, far)]
        assert fed.bits == [0] * 6


def test_echo_of_a_move_does_not_drop_what_came_after(worker: Worker) -> None:
    """The UNMAP that says again that a move has left its place is no unmapping."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(REMAP, Z, X, SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Z, Z + SIZE),
    ]
    with served(worker, [IN_X, IN_Z], *messages) as fed:
        assert fed.regions() == [moved(IN_Z, X), moved(IN_X, Y)]
        assert fed.bits == [0, 0, 0, 0]
        assert fed.session.counters.events_unmap == 2


def test_one_move_has_one_echo(worker: Worker) -> None:
    """After a move has been echoed, the next UNMAP of that range is one."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, X, X + SIZE),
        message(REMAP, Z, X, SIZE),
        message(UNMAP, Z, Z + SIZE),
        message(UNMAP, X, X + SIZE),
    ]
    with served(worker, [IN_X, IN_Z], *messages) as fed:
        assert fed.bits == [0, 0, 1, 1]


def test_unmapping_of_part_of_a_moved_range_is_no_echo(worker: Worker) -> None:
    """An UNMAP of other bounds than the move's does what it says."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Y, Y + PAGE),
    ]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.bits == [1, 0]


def test_tail_that_a_move_cut_off_is_unmapped_with_it(worker: Worker) -> None:
    """What a shrinking move has unmapped first and tells last does not drop what came after."""
    in_x, in_z = IN_X._replace(nr_pages=1), Region(Z, 1, PAGE, 1)
    messages = [
        message(REMAP, X, Y, PAGE),
        message(REMAP, Z, X + PAGE, PAGE),
        message(UNMAP, X + PAGE, X + SIZE),
        message(UNMAP, X, X + PAGE),
    ]
    with served(worker, [in_x, in_z], *messages) as fed:
        assert fed.regions() == [moved(in_z, X + PAGE), moved(in_x, Y)]
        assert fed.bits == [0, 0]


def test_unmapping_read_before_the_echo_made_room_for_the_move(worker: Worker) -> None:
    """Whoever unmaps what a move has brought knows that its call has returned, and so that its
    echo has been read; an UNMAP before that was of what the image does not speak for."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, Y, Y + SIZE),
        message(UNMAP, X, X + SIZE),
    ]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.regions() == [moved(IN_X, Y)]
        assert fed.bits == [0, 0]


@pytest.mark.parametrize(
    "finds_it",
    [
        pytest.param(message(REMAP, Y, Z, SIZE), id="moved"),
        pytest.param(message(UNMAP, Y, Y + SIZE), id="unmapped"),
        pytest.param(message(REMOVE, Y, Y + PAGE), id="emptied"),
    ],
)
def test_unmapping_made_room_if_a_later_event_finds_the_place_taken(
    worker: Worker, finds_it: bytes
) -> None:
    """Only of registered memory does the kernel tell anything, so after the UNMAP of all that was
    there, nothing more would have been told of the place. (This move has no echo.)"""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, Y, Y + SIZE),
        finds_it,
    ]
    with served(worker, [IN_X], *messages) as fed:
        [region] = fed.regions()
        missing = {message(REMAP, Y, Z, SIZE): (Z, [0, 0])}
        addr, bits = missing.get(finds_it, (Y, [1, 1] if finds_it[0] == UNMAP else [1, 0]))
        assert (region.start, fed.bits) == (addr, bits)


def test_unmapping_after_the_echo_is_of_what_came_though_something_grew(worker: Worker) -> None:
    """What a later event finds may have grown there, of which nobody tells."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Y + PAGE, Y + SIZE),
        message(REMOVE, Y + PAGE, Y + SIZE),
    ]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.bits == [0, 1]


def test_unmapping_of_what_a_move_brought_drops_it_before_the_next_comes(worker: Worker) -> None:
    """A move, an UNMAP and another move to one place take effect as they were read."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Y, Y + SIZE),
        message(REMAP, Z, Y, SIZE),
        message(UNMAP, Z, Z + SIZE),
    ]
    with served(worker, [IN_X, IN_Z], *messages) as fed:
        assert fed.regions() == [moved(IN_Z, Y)]
        assert fed.bits == [1, 1, 0, 0]


def test_rows_of_moves_find_room_where_the_state_knows_of_nothing(worker: Worker) -> None:
    """A move waits for the one that makes room, and that one for an UNMAP, all read too late."""
    far = BASE + 32 * PAGE
    messages = [
        message(REMAP, X, Y, SIZE),
        message(REMAP, Y, Z, SIZE),
        message(UNMAP, Z, Z + SIZE),
        message(UNMAP, Y, Y + SIZE),
        message(UNMAP, X, X + SIZE),
        message(REMAP, Z, far, SIZE),
    ]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.regions() == [moved(IN_X, Y)]
        assert fed.bits == [0, 0]


class Quiet:
    """A session with messages that were read from a real userfaultfd, as far as it can tell."""

    def __init__(self, worker: Worker, uffd: int, region: Region, *messages: bytes) -> None:
        state = State.create("quiet", c_regions([region]), 1, region.nr_pages, 1)
        self.session = Session("quiet", uffd, state, [])
        self.session.pointer.nr_messages = len(messages)
        size = len(b"".join(messages))
        ffi.buffer(state.pointer.messages)[:size] = b"".join(messages)
        worker.attach(self.session)
        wait_until(lambda: self.session.counters.events_remap == 1, "the events")

    def bits(self, worker: Worker) -> list[int]:
        """Return what became of the pages; the session is over then."""
        found = bits_of(self.session.state.pointer)
        self.session.request(lib.LPD_REQUEST_DETACH)
        detached: list[Session] = []
        while not detached:
            wait_readable(worker.report_fd, "the detached session")
            _, detached = worker.take_reports()
        self.session.close()
        return found


@pytest.mark.uffd
@pytest.mark.parametrize("is_there", [True, False])
def test_kernel_tells_whether_an_unmapping_made_room(worker: Worker, is_there: bool) -> None:
    """An UNMAP of a move's destination, read after its echo, was before the move if the place is
    taken now; else it was of what the move had brought."""
    with Toucher(16) as toucher:
        place = toucher.arena + 8 * PAGE
        # So that what is there is a mapping of its own, as a move makes it.
        toucher.call("mprotect", place - PAGE, PAGE, mmap.PROT_READ)
        uffd = toucher.give_uffd()
        if not is_there:
            unmapping = toucher.start("munmap", place, SIZE)
            assert events(uffd, 1) == [(UNMAP, place, place + SIZE, 0)]
            assert toucher.result(unmapping) == 0
        messages = [
            message(REMAP, BASE, place, SIZE),
            message(UNMAP, BASE, BASE + SIZE),
            message(UNMAP, place, place + SIZE),
        ]
        quiet = Quiet(worker, uffd, Region(BASE, 2, 0, 0), *messages)
        assert quiet.bits(worker) == ([0, 0] if is_there else [1, 1])


@pytest.mark.uffd
def test_what_is_behind_the_first_page_of_a_move_may_have_grown(worker: Worker) -> None:
    """The kernel cannot tell pages that a mapping has grown from those that it was moved with, so
    an UNMAP after the echo is taken for what it seems."""
    with Toucher(16) as toucher:
        place = toucher.arena + 8 * PAGE
        messages = [
            message(REMAP, BASE, place, SIZE),
            message(UNMAP, BASE, BASE + SIZE),
            message(UNMAP, place + PAGE, place + SIZE),
        ]
        quiet = Quiet(worker, toucher.give_uffd(), Region(BASE, 2, 0, 0), *messages)
        assert quiet.bits(worker) == [0, 1]


@pytest.mark.uffd
def test_what_has_grown_into_a_place_was_not_moved_there(worker: Worker) -> None:
    """A place that is of one mapping with the page below it was grown into, and tells nothing."""
    with Toucher(16) as toucher:
        place = toucher.arena + 8 * PAGE
        messages = [
            message(REMAP, BASE, place, SIZE),
            message(UNMAP, BASE, BASE + SIZE),
            message(UNMAP, place, place + SIZE),
        ]
        quiet = Quiet(worker, toucher.give_uffd(), Region(BASE, 2, 0, 0), *messages)
        assert quiet.bits(worker) == [1, 1]


def test_no_tail_follows_the_echo_of_its_move(worker: Worker) -> None:
    """What is unmapped behind where a move began, after that move's echo, is not its tail."""
    messages = [
        message(REMAP, X, Y, PAGE),
        message(UNMAP, X, X + PAGE),
        message(REMAP, X + PAGE, Y + PAGE, PAGE),
        message(UNMAP, X + PAGE, X + SIZE),
        message(UNMAP, X + PAGE, X + SIZE),
    ]
    with served(worker, [IN_X], *messages) as fed:
        assert [region.start for region in fed.regions()] == [Y, Y + PAGE]
        assert fed.bits == [0, 0]


def test_removal_keeps_its_place_in_the_order(worker: Worker) -> None:
    """Pages that are emptied after they were moved are emptied where they are then."""
    messages = [message(REMAP, X, Y, SIZE), message(REMOVE, Y, Y + PAGE)]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.bits == [1, 0]


def test_moves_in_a_circle_take_effect_as_read(worker: Worker) -> None:
    """Events that all wait for each other do not stop the session."""
    messages = [message(REMAP, X, Z, SIZE), message(REMAP, Z, X, SIZE)]
    with served(worker, [IN_X, IN_Z], *messages) as fed:
        assert fed.session.counters.events_remap == 2


def test_unknown_event_is_counted(worker: Worker) -> None:
    """An event of a later kernel is passed over, those behind it are not."""
    messages = [message(0x77, 1, 2, 3), message(UNMAP, X, X + PAGE)]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.session.counters.events_unknown == 1
        assert fed.bits == [1, 0]


def test_full_buffer_of_events_takes_effect(worker: Worker) -> None:
    """More messages than one round has room for are served in several."""
    n = lib.LPD_MAX_MESSAGES + 5
    messages = [message(UNMAP, X + i * PAGE, X + (i + 1) * PAGE) for i in range(n)]
    with Fed(worker, [Region(X, n + 1, 0, 0)], messages) as fed:
        wait_until(lambda: fed.session.counters.events_unmap == n, "every event")
        fed.finish()
        assert fed.bits == [1] * n + [0]


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


def race(toucher: Toucher, uffd: int) -> tuple[int, int]:
    """Let one thread move two pages away and another move pages there, nobody reading; return what
    to ask their results with."""
    x, z = toucher.arena, toucher.arena + 8 * PAGE
    leaving = toucher.start("mremap", x, SIZE, SIZE, MREMAP_MAYMOVE_FIXED, toucher.reserved)
    wait_readable(uffd, "the first move's event")
    toucher.call("mmap", x, SIZE, READ_WRITE, MAPPING, -1, 0)
    coming = toucher.start("mremap", z, SIZE, SIZE, MREMAP_MAYMOVE_FIXED, x)
    wait_until(lambda: toucher.nr_waiting_for_events() == 2, "two moves under way")
    return leaving, coming


def events(uffd: int, n: int) -> list[tuple[int, ...]]:
    """Read *n* events: (event, three arguments)."""
    raw = b""
    while len(raw) < n * 32:
        wait_readable(uffd, f"{n} events")
        raw += os.read(uffd, n * 32 - len(raw))
    return [(raw[at], *struct.unpack_from("3Q", raw, at + 8)) for at in range(0, len(raw), 32)]


@pytest.mark.uffd
def test_kernel_says_late_what_a_move_has_left() -> None:
    """The kernel queues the UNMAP of a moved range once its REMAP has been read, and so after
    another thread's move to that place."""
    with Toucher(16) as toucher:
        uffd = toucher.uffd
        assert uffd is not None
        x, y, z = toucher.arena, toucher.reserved, toucher.arena + 8 * PAGE
        leaving, coming = race(toucher, uffd)
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
def test_pages_moved_to_where_others_were_keep_their_bytes(worker: Worker) -> None:
    """Real moves, the second to where the first has left, bring every page where it belongs."""
    data = b"".join(bytes([i + 1]) * PAGE for i in range(16))
    with Toucher(16) as toucher, Short(data, len(data)) as file:
        x, y, z = toucher.arena, toucher.reserved, toucher.arena + 8 * PAGE
        source: FileSource = file.as_source()
        uffd = toucher.give_uffd()
        leaving, coming = race(toucher, uffd)
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
