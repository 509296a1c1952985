"""v1 and v2, fed by the packet: what a session makes of the messages of a channel."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

import pytest

from lazypagesd.engine.session import Session
from lazypagesd.engine.state import State
from lazypagesd.engine.worker import Worker
from lazypagesd.native import ffi, lib
from lazypagesd.sources.file import FileSource
from tests.native.states import BASE, PAGE, Region, bits_of, c_regions, nr_pages_of, regions_of
from tests.native.waiting import wait_readable, wait_until

V1, V2 = lib.LPD_PROTOCOL_CHANNEL_V1, lib.LPD_PROTOCOL_CHANNEL_V2
PAGEFAULT, FORK, REMAP, REMOVE, UNMAP, ARGUMENT = range(1, 7)  # enum lpd_v2_type
WAKE, COPY, ZEROPAGE, READ = 2, 3, 4, 16  # enum lpd_op_kind
OP = struct.Struct("=3Q")
LARGEST = OP.size + 65536
MOST_MESSAGES = 64
DEADLINE_S = 10.0
IMAGE = Region(BASE, 8, 0, 0)
HOLE = BASE + 64 * PAGE  # where the image has nothing


def v1(*args: int) -> bytes:
    return struct.pack(f"={len(args)}Q", *args)


def v2(*messages: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("=2Q", *message) for message in messages)


class Channel:
    """A session with a region of eight pages, whose process this test is.

    What another daemon may have *left*, its messages and the last event that it had noted, is
    taken over.
    """

    def __init__(
        self,
        worker: Worker,
        protocol: int,
        source: FileSource,
        *,
        left: tuple[bytes, int] | None = None,
    ) -> None:
        self._worker = worker
        self.socket, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(DEADLINE_S)
        regions = [IMAGE]
        state = State.create(
            "fed", c_regions(regions), 1, nr_pages_of(regions), 1, protocol=protocol
        )
        if left is not None:
            messages, state.pointer.last_event = left
            ffi.buffer(state.pointer.messages)[: len(messages)] = messages
            lib.lpd_state_take_over(state.pointer)
        self.session = Session("fed", ours.detach(), state, [source])
        worker.attach(self.session)
        if left is not None:
            self.session.retry()

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.session.request(lib.LPD_REQUEST_RESUME | lib.LPD_REQUEST_DETACH)
        detached: list[Session] = []
        while not detached:
            wait_readable(self._worker.report_fd, "the detached session")
            _, detached = self._worker.take_reports()
        self.session.close()
        self.socket.close()

    def send(self, packet: bytes) -> None:
        self.socket.send(packet)

    def receive(self) -> tuple[int, int, int, bytes]:
        """Return the next operation: its kind, its range, and the bytes that came with it."""
        packet = self.socket.recv(LARGEST + 1)
        kind, addr, length = OP.unpack(packet[: OP.size])
        return kind, addr, length, packet[OP.size :]

    @property
    def bits(self) -> list[int]:
        return bits_of(self.session.state.pointer)

    def wait_counted(self, **expected: int) -> None:
        for name, count in expected.items():
            wait_until(
                lambda name=name, count=count: getattr(self.session.counters, name) == count,  # type: ignore[misc]
                f"{name}={count}",
            )

    def wait_status(self) -> int:
        wait_readable(self._worker.report_fd, "a report")
        [(_, status)], _ = self._worker.take_reports()
        return status


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Run a worker."""
    worker = Worker(0)
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def source() -> Iterator[FileSource]:
    """Give eight pages, each full of its number, from 1."""
    fd = os.memfd_create("pages")
    os.write(fd, b"".join(bytes([i + 1]) * PAGE for i in range(8)))
    yield FileSource.of(fd, "pages")
    os.close(fd)


@pytest.mark.parametrize("protocol", [V1, V2])
def test_fault_is_answered_with_its_page(
    worker: Worker, source: FileSource, protocol: int
) -> None:
    """A fault in the image brings a COPY of that page, whatever low bits its address has."""
    with Channel(worker, protocol, source) as channel:
        addr = BASE + 2 * PAGE | 1
        channel.send(v1(addr) if protocol == V1 else v2((PAGEFAULT, addr)))
        assert channel.receive() == (COPY, BASE + 2 * PAGE, PAGE, b"\x03" * PAGE)


@pytest.mark.parametrize("protocol", [V1, V2])
def test_fault_at_a_hole_is_answered_with_zeros(
    worker: Worker, source: FileSource, protocol: int
) -> None:
    """A fault where the image has nothing brings a ZEROPAGE."""
    with Channel(worker, protocol, source) as channel:
        channel.send(v1(HOLE) if protocol == V1 else v2((PAGEFAULT, HOLE)))
        assert channel.receive() == (ZEROPAGE, HOLE, PAGE, b"")


@pytest.mark.parametrize("protocol", [V1, V2])
def test_packet_may_hold_many_faults(worker: Worker, source: FileSource, protocol: int) -> None:
    """As many faults as a packet may have are all answered, in their order."""
    with Channel(worker, protocol, source) as channel:
        addrs = [HOLE + i * PAGE for i in range(MOST_MESSAGES)]
        channel.send(v1(*addrs) if protocol == V1 else v2(*((PAGEFAULT, addr) for addr in addrs)))
        assert [channel.receive()[1] for _ in addrs] == addrs


@pytest.mark.parametrize("protocol", [V1, V2])
def test_fault_that_is_no_missing_page_is_not_filled(
    worker: Worker, source: FileSource, protocol: int
) -> None:
    """A write-protect fault, which nobody has announced, is counted and passed over."""
    with Channel(worker, protocol, source) as channel:
        channel.send(v1(BASE | 2) if protocol == V1 else v2((PAGEFAULT, BASE | 2)))
        channel.wait_counted(events_unknown=1)
        assert channel.bits == [0] * 8


@pytest.mark.parametrize(
    ("protocol", "packet"),
    [
        (V1, b"1234567"),
        (V1, v1(HOLE) + b"\0"),
        (V1, v1(*[HOLE] * (MOST_MESSAGES + 1))),
        (V2, v1(PAGEFAULT)),
        (V2, v2((PAGEFAULT, HOLE)) + b"\0"),
        (V2, v2(*[(PAGEFAULT, HOLE)] * (MOST_MESSAGES + 1))),
    ],
)
def test_packet_of_no_whole_messages_is_passed_over(
    worker: Worker, source: FileSource, protocol: int, packet: bytes
) -> None:
    """What is cut off or too long is no message at all, and what comes behind it is."""
    with Channel(worker, protocol, source) as channel:
        channel.send(packet)
        channel.send(v1(HOLE) if protocol == V1 else v2((PAGEFAULT, HOLE)))
        while (answer := channel.receive())[0] == READ or answer[1] == 0:
            pass
        assert answer == (ZEROPAGE, HOLE, PAGE, b"")
        assert channel.bits == [0] * 8


def test_event_takes_effect_and_lets_its_caller_go_on(worker: Worker, source: FileSource) -> None:
    """REMOVE, UNMAP and REMAP are answered with READ, and change the state."""
    with Channel(worker, V2, source) as channel:
        channel.send(v2((REMOVE, BASE), (ARGUMENT, BASE + PAGE)))
        channel.send(v2((UNMAP, BASE + PAGE), (ARGUMENT, BASE + 2 * PAGE)))
        channel.send(v2((REMAP, BASE + 4 * PAGE), (ARGUMENT, HOLE), (ARGUMENT, 4 * PAGE)))
        assert [channel.receive()[0] for _ in range(3)] == [READ] * 3
        channel.wait_counted(events_remove=1, events_unmap=1, events_remap=1)
        assert channel.bits == [1, 1, 0, 0, 0, 0, 0, 0]
        assert regions_of(channel.session.state.pointer)[-1].start == HOLE


def test_events_take_effect_as_they_are_read(worker: Worker, source: FileSource) -> None:
    """Nothing comes late or twice here: what a userfaultfd's echo would be, is an UNMAP."""
    place = HOLE + 8 * PAGE
    with Channel(worker, V2, source) as channel:
        channel.send(v2((REMAP, BASE), (ARGUMENT, HOLE), (ARGUMENT, PAGE)))
        channel.send(v2((REMAP, BASE + PAGE), (ARGUMENT, BASE), (ARGUMENT, PAGE)))
        channel.send(v2((UNMAP, BASE), (ARGUMENT, BASE + PAGE)))
        channel.send(v2((REMAP, BASE + 2 * PAGE), (ARGUMENT, place), (ARGUMENT, PAGE)))
        channel.wait_counted(events_remap=3, events_unmap=1)
        assert channel.bits == [0, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "packet",
    [
        v2((7, BASE)),
        v2((0, BASE)),
        v2((FORK, 0)),
        v2((REMOVE, BASE)),
        v2((REMOVE, BASE), (PAGEFAULT, HOLE)),
        v2((REMOVE, BASE + PAGE), (ARGUMENT, BASE)),
        v2((UNMAP, BASE + 1), (ARGUMENT, BASE + PAGE)),
        v2((UNMAP, BASE), (ARGUMENT, 2**64 - PAGE)),
        v2((REMAP, BASE), (ARGUMENT, HOLE)),
        v2((REMAP, BASE), (ARGUMENT, HOLE), (ARGUMENT, 0)),
        v2((REMAP, BASE), (ARGUMENT, BASE + PAGE), (ARGUMENT, 2 * PAGE)),
        v2((REMAP, BASE), (ARGUMENT, HOLE), (ARGUMENT, 2**64 - BASE)),
    ],
)
def test_event_that_makes_no_sense_changes_nothing(
    worker: Worker, source: FileSource, packet: bytes
) -> None:
    """An unknown type, or arguments that no call can have had, are counted and passed over."""
    with Channel(worker, V2, source) as channel:
        channel.send(packet)
        channel.wait_counted(events_unknown=1)
        assert channel.bits == [0] * 8
        assert regions_of(channel.session.state.pointer) == [IMAGE]


def test_fork_brings_the_channel_of_the_child(worker: Worker, source: FileSource) -> None:
    """The descriptor that came with a FORK is reported under the number that it has here."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Channel(worker, V2, source) as channel, theirs:
        socket.send_fds(channel.socket, [v2((FORK, 0))], [ours.fileno()])
        ours.close()
        assert channel.receive()[0] == READ
        assert channel.wait_status() == lib.LPD_STATUS_FORKED
        child = socket.socket(fileno=channel.session.pointer.child_fd)
        with child:
            assert not child.get_inheritable()
            child.send(b"hello")
            assert theirs.recv(10) == b"hello"


@pytest.mark.parametrize(
    "packet",
    [
        v2((PAGEFAULT, HOLE)),
        v2((REMOVE, BASE), (FORK, 1)),
        b"",
        b"123",
    ],
)
def test_descriptor_that_belongs_to_no_fork_is_closed(
    worker: Worker, source: FileSource, packet: bytes
) -> None:
    """Only the first message of a packet can be a FORK, and nobody names a descriptor of ours."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Channel(worker, V2, source) as channel, theirs:
        theirs.settimeout(DEADLINE_S)
        socket.send_fds(channel.socket, [packet], [ours.fileno()])
        ours.close()
        assert theirs.recv(1) == b""
        assert channel.session.counters.events_fork == 0


def test_end_of_the_process_is_the_end_of_the_session(worker: Worker, source: FileSource) -> None:
    """When the process has closed its end, what it said before takes effect, and then it is gone,
    though it has not taken all that was sent to it."""
    with Channel(worker, V2, source) as channel:
        channel.send(v2((PAGEFAULT, BASE)))
        wait_until(lambda: channel.session.counters.pages_fault == 1, "the fill")
        assert not channel.session.is_gone()
        channel.send(v2((UNMAP, BASE + PAGE), (ARGUMENT, BASE + 2 * PAGE)))
        channel.socket.close()
        assert channel.wait_status() == lib.LPD_STATUS_GONE
        assert channel.session.is_gone()
        assert channel.bits == [1, 1, 0, 0, 0, 0, 0, 0]


def test_process_that_takes_nothing_holds_up_nobody(worker: Worker, source: FileSource) -> None:
    """When the socket is full, fills wait for room, an event is still answered, and no page is
    lost; another session goes on meanwhile."""
    with Channel(worker, V2, source) as stuck, Channel(worker, V2, source) as other:
        addrs = [BASE + i * PAGE for i in range(8)] + [HOLE + i * PAGE for i in range(500)]
        for i in range(0, len(addrs), MOST_MESSAGES):
            stuck.send(v2(*((PAGEFAULT, addr) for addr in addrs[i : i + MOST_MESSAGES])))
        wait_until(lambda: stuck.session.counters.retries > 0, "a full socket")
        stuck.send(v2((REMOVE, HOLE), (ARGUMENT, HOLE + PAGE)))
        other.send(v2((PAGEFAULT, BASE)))
        assert other.receive()[0] == COPY
        filled: set[int] = set()
        nr_read = 0
        while len(filled) < len(addrs) or not nr_read:
            kind, addr, _, _ = stuck.receive()
            nr_read += kind == READ
            filled |= {addr} if kind in (COPY, ZEROPAGE) else set()
        assert (filled, nr_read) == (set(addrs), 1)


def test_faults_that_cannot_be_kept_stay_in_the_socket(worker: Worker, source: FileSource) -> None:
    """When as many faults are pending as can be, those behind them wait to be read, and are
    answered when there is room."""
    with Channel(worker, V2, source) as channel:
        holes = (HOLE + i * PAGE for i in range(1000))

        asked: list[int] = []

        def ask(nr_faults: int) -> int:
            """Return how many are pending then; nobody takes anything, so that stays so."""
            addrs = [next(holes) for _ in range(nr_faults)]
            asked.extend(addrs)
            channel.send(v2(*((PAGEFAULT, addr) for addr in addrs)))
            channel.wait_counted(faults=len(asked))
            return len(asked) - channel.session.counters.pages_zero

        while not (nr_pending := ask(MOST_MESSAGES)):
            pass
        while nr_free := lib.LPD_MAX_PENDING - nr_pending:
            nr_pending = ask(nr_free % MOST_MESSAGES or MOST_MESSAGES)
        channel.send(v2((PAGEFAULT, BASE)))
        answered = {channel.receive()[1] for _ in range(len(asked) + 1)}
        assert answered == {*asked, BASE}
        assert channel.session.counters.held == 0
