"""A channel whose daemon died is gone on with: each event takes effect once, in time."""

from __future__ import annotations

import socket

import pytest

from lazypagesd.engine.worker import Worker
from lazypagesd.native import lib
from lazypagesd.sources.file import FileSource
from tests.native.states import BASE, PAGE, regions_of
from tests.native.test_channel import (
    ARGUMENT,
    COPY,
    DEADLINE_S,
    FORK,
    HOLE,
    PAGEFAULT,
    READ,
    REMAP,
    UNMAP,
    V1,
    V2,
    WAKE,
    Channel,
    source,
    v1,
    v2,
    worker,
)

__all__ = ["source", "worker"]

NUMBER = 7
PLACE = HOLE + 8 * PAGE  # where nothing is either


def moved(start: int, to: int, number: int) -> bytes:
    """Return the packet of a mremap() of four pages."""
    args = (ARGUMENT, to), (ARGUMENT, 4 * PAGE), (ARGUMENT, number)
    return v2((REMAP, start), *args)


def unmapped(start: int, number: int) -> bytes:
    """Return the packet of a munmap() of a page."""
    return v2((UNMAP, start), (ARGUMENT, start + PAGE), (ARGUMENT, number))


def starts(channel: Channel) -> list[int]:
    """Return where the regions begin."""
    return [region.start for region in regions_of(channel.session.state.pointer)]


def is_everything(operation: tuple[int, int, int, bytes]) -> bool:
    """Whether it is a WAKE over all addresses there can be."""
    kind, addr, length, _ = operation
    return kind == WAKE and addr <= BASE and addr + length > PLACE + 8 * PAGE


def test_event_that_comes_again_takes_effect_once(worker: Worker, source: FileSource) -> None:
    """It is answered under its number each time, and what comes next is as good as ever."""
    with Channel(worker, V2, source) as channel:
        # The second would move what lies there by then.
        for packet in (moved(BASE, HOLE, 1), moved(HOLE, BASE, 2), moved(BASE, HOLE, 1)):
            channel.send(packet)
        channel.send(unmapped(HOLE, 3))
        assert [channel.receive()[:2] for _ in range(4)] == [(READ, i) for i in (1, 2, 1, 3)]
        channel.wait_counted(events_remap=2, events_unmap=1)
        assert starts(channel) == [BASE, BASE + 4 * PAGE]
        assert channel.session.state.pointer.last_event == 3


def test_fork_that_comes_again_has_one_child(worker: Worker, source: FileSource) -> None:
    """The descriptor that comes with the repetition is closed, and reported is the first."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    with Channel(worker, V2, source) as channel:
        for theirs, ours in pairs:
            theirs.settimeout(DEADLINE_S)
            socket.send_fds(channel.socket, [v2((FORK, 9), (ARGUMENT, 1))], [ours.fileno()])
            ours.close()
        assert channel.receive()[:2] == (READ, 1)
        assert channel.wait_status() == lib.LPD_STATUS_FORKED
        with socket.socket(fileno=channel.session.pointer.child_fd) as child:
            child.send(b"hello")
        assert pairs[0][0].recv(10) == b"hello"
        channel.session.request(lib.LPD_REQUEST_RESUME)
        assert channel.receive()[:2] == (READ, 1)
        assert pairs[1][0].recv(1) == b""
        assert channel.session.counters.events_fork == 1
    for theirs, _ in pairs:
        theirs.close()


@pytest.mark.parametrize("noted", [NUMBER - 1, NUMBER])
def test_event_that_was_read_is_confirmed_first_of_all(
    worker: Worker, source: FileSource, noted: int
) -> None:
    """One among the messages, noted or not, is answered before anything is filled, takes effect
    before that too, and does not do so again."""
    messages = moved(BASE, HOLE, NUMBER) + v2((PAGEFAULT, HOLE + PAGE))
    with Channel(worker, V2, source, left=(messages, noted)) as channel:
        assert channel.receive()[:2] == (READ, NUMBER)
        assert channel.receive() == (COPY, HOLE + PAGE, PAGE, b"\x02" * PAGE)
        assert is_everything(channel.receive())
        channel.send(moved(BASE, HOLE, NUMBER))
        assert channel.receive()[:2] == (READ, NUMBER)
        channel.send(v2((PAGEFAULT, HOLE)))
        assert channel.receive() == (COPY, HOLE, PAGE, b"\x01" * PAGE)
        assert channel.session.counters.events_remap == 1


def test_event_that_is_done_with_is_confirmed_again(worker: Worker, source: FileSource) -> None:
    """With no message left the process may still wait for its READ."""
    with Channel(worker, V2, source, left=(b"", NUMBER)) as channel:
        assert channel.receive()[:2] == (READ, NUMBER)
        assert is_everything(channel.receive())


def test_packet_that_was_being_kept_is_none(worker: Worker, source: FileSource) -> None:
    """Without its first word it has not been read: sent again, it takes effect."""
    packet = moved(BASE, HOLE, NUMBER)
    with Channel(worker, V2, source, left=(bytes(8) + packet[8:], NUMBER - 1)) as channel:
        assert channel.receive()[:2] == (READ, NUMBER - 1)
        assert is_everything(channel.receive())
        assert not channel.session.counters.events_unknown
        channel.send(packet)
        assert channel.receive()[:2] == (READ, NUMBER)
        channel.wait_counted(events_remap=1)
        assert starts(channel) == [BASE + 4 * PAGE, HOLE]


def test_fork_that_was_read_has_its_child(worker: Worker, source: FileSource) -> None:
    """A child whose FORK was left is reported, and no other one when it is told of again."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    again = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left = v2((FORK, ours.fileno()), (ARGUMENT, NUMBER)), NUMBER - 1
    with theirs, ours, again[0], Channel(worker, V2, source, left=left) as channel:
        assert channel.receive()[:2] == (READ, NUMBER)
        assert channel.wait_status() == lib.LPD_STATUS_FORKED
        assert channel.session.pointer.child_fd == ours.fileno()
        channel.session.request(lib.LPD_REQUEST_RESUME)
        socket.send_fds(channel.socket, [v2((FORK, 0), (ARGUMENT, NUMBER))], [again[1].fileno()])
        again[1].close()
        again[0].settimeout(DEADLINE_S)
        assert again[0].recv(1) == b""
        assert channel.session.counters.events_fork == 1


def test_event_without_a_number_is_never_a_repetition(worker: Worker, source: FileSource) -> None:
    """Who does not number its events is answered with READ of none."""
    with Channel(worker, V2, source, left=(b"", NUMBER)) as channel:
        channel.receive()
        channel.receive()
        channel.send(v2((UNMAP, BASE), (ARGUMENT, BASE + PAGE)))
        channel.send(v2((UNMAP, BASE + PAGE), (ARGUMENT, BASE + 2 * PAGE)))
        assert [channel.receive()[:2] for _ in range(2)] == [(READ, 0)] * 2
        channel.wait_counted(events_unmap=2)


def test_process_without_events_is_woken(worker: Worker, source: FileSource) -> None:
    """With v1 a fault that was read is answered, and one that was lost is asked for anew."""
    with Channel(worker, V1, source, left=(v1(BASE), 0)) as channel:
        assert channel.receive() == (COPY, BASE, PAGE, b"\x01" * PAGE)
        assert is_everything(channel.receive())
        channel.send(v1(BASE + PAGE))
        assert channel.receive() == (COPY, BASE + PAGE, PAGE, b"\x02" * PAGE)
