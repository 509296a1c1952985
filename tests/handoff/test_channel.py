"""The exchange with the process at the other end of a channel: what is agreed on, what refused."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lazypagesd.handoff import channel
from lazypagesd.handoff.native import Session
from lazypagesd.handoff.packets import Refused
from lazypagesd.images.pagemap import PageMap
from lazypagesd.images.regions import RegionTable
from lazypagesd.kernel.channel import (
    ALL_TYPES,
    SEND_BUFFER,
    UNKNOWN,
    Api,
    Offer,
    Type,
    protocol_of,
    request,
)
from tests.kernel.test_channel import V1_ANSWER, V2_ANSWER

V1, V2, NOTHING = V1_ANSWER.pack(), V2_ANSWER.pack(), UNKNOWN.pack()
EVERYTHING = Type(ALL_TYPES)
REFUSED = "hand-off: refused: the channel cannot be served: "


def v2_without(*types: Type) -> bytes:
    """Return the answer of a process that does not tell of everything."""
    there = ALL_TYPES & ~sum(types)
    return Offer(0xAB, there << 12, V2_ANSWER.ioctls, there).pack()


def session(sock: socket.socket, needed: Type = EVERYTHING) -> Session:
    """Return a session whose daemon has *sock*."""
    return Session(sock.fileno(), None, 0, empty_map(), (), needed)


def empty_map() -> PageMap:
    """Return the page map of a process that is all zero."""
    return RegionTable([]).page_map()


class Ends:
    """The two ends of a channel, of which the test is the process."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def agree(self, *answers: bytes, needed: Type = EVERYTHING) -> int:
        """Let the process give *answers*, and return what comes of it."""
        for answer in answers:
            self.theirs.send(answer)
        return asyncio.run(channel.agree(session(self.ours, needed)))

    def asked(self) -> list[bytes]:
        """Return what the process was asked."""
        self.theirs.setblocking(False)
        packets = []
        try:
            while packet := self.theirs.recv(64):
                packets.append(packet)
        except BlockingIOError:
            pass
        return packets

    def close(self) -> None:
        """Close both."""
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A channel; as many descriptors are open afterwards as before."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted
    ends = Ends()
    yield ends
    ends.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - counted


@pytest.mark.parametrize("blocking", [True, False])
def test_v2_is_asked_for_first(ends: Ends, blocking: bool) -> None:
    """A process that understands v2 is served with it, however the socket waits."""
    ends.ours.setblocking(blocking)
    assert ends.agree(V2) == protocol_of(Api.V2)
    assert ends.asked() == [request(Api.V2).pack()]


def test_v1_is_asked_for_then(ends: Ends) -> None:
    """A process that does not understand v2 is served with v1, if it can do without events."""
    assert ends.agree(NOTHING, V1, needed=Type.PAGEFAULT) == protocol_of(Api.V1)
    assert ends.asked() == [request(Api.V2).pack(), request(Api.V1).pack()]


@pytest.mark.parametrize(
    ("lacking", "needed"),
    [
        ((Type.FORK,), EVERYTHING & ~Type.FORK),
        ((Type.REMAP, Type.REMOVE, Type.UNMAP, Type.ARGUMENT), Type.PAGEFAULT | Type.FORK),
    ],
)
def test_types_may_be_waived(ends: Ends, lacking: tuple[Type, ...], needed: Type) -> None:
    """v2 without what the process never does is as good as all of it."""
    assert ends.agree(v2_without(*lacking), needed=needed) == protocol_of(Api.V2)


@pytest.mark.parametrize(
    ("answers", "needed", "reason"),
    [
        pytest.param(
            [NOTHING, V1],
            EVERYTHING,
            "V1 without FORK: say never_forks if the process never does; the channel cannot be"
            " served: V1 without REMAP|REMOVE|UNMAP|ARGUMENT: say never_changes_mappings if so",
            id="v1",
        ),
        pytest.param(
            [NOTHING, V1],
            EVERYTHING & ~Type.FORK,
            "V1 without REMAP|REMOVE|UNMAP|ARGUMENT: say never_changes_mappings if so",
            id="v1 that changes mappings",
        ),
        pytest.param(
            [v2_without(Type.FORK)],
            EVERYTHING,
            "V2 without FORK: say never_forks if the process never does",
            id="v2 without forks",
        ),
        pytest.param(
            [v2_without(Type.REMOVE)],
            EVERYTHING,
            "V2 without REMOVE: say never_changes_mappings if so",
            id="v2 without REMOVE",
        ),
        pytest.param(
            [NOTHING, NOTHING],
            EVERYTHING,
            "api exchange: the process understands neither v2 nor v1",
            id="neither",
        ),
        pytest.param(
            [replace(V2_ANSWER, features=0x7F, bits=0x7F001).pack()],
            EVERYTHING,
            "api exchange: unknown features (0x7f)",
            id="a type of tomorrow",
        ),
        pytest.param(
            [V1], EVERYTHING, "api exchange: asked for 0xab, answered 0xaa", id="another api"
        ),
        pytest.param([b"?"], EVERYTHING, "api exchange: 1 bytes instead of 32", id="garbage"),
        pytest.param(
            [bytes(65536)], EVERYTHING, "api exchange: 1025 bytes instead of 32", id="too much"
        ),
        pytest.param(
            [NOTHING, b"?"], EVERYTHING, "api exchange: 1 bytes instead of 32", id="v1 garbage"
        ),
    ],
)
def test_answer_that_cannot_be_served_is_refused(
    ends: Ends, answers: list[bytes], needed: Type, reason: str
) -> None:
    """Nothing but an answer that is understood, and tells of all that the process may do, is
    taken; and the reason says what to do."""
    with pytest.raises(Refused) as caught:
        ends.agree(*answers, needed=needed)
    assert str(caught.value) == REFUSED + reason


@pytest.mark.parametrize("answers", [[], [NOTHING]])
def test_process_that_says_nothing_is_refused(
    ends: Ends, answers: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for an answer, to the first question or the second, has an end."""
    monkeypatch.setattr(channel, "ANSWER_TIMEOUT_S", 0.05)
    with pytest.raises(Refused) as caught:
        ends.agree(*answers)
    assert str(caught.value) == f"{REFUSED}no answer to the api exchange within 0.05 s"


@pytest.mark.parametrize("answers", [[], [NOTHING]])
def test_process_that_is_gone_is_refused(ends: Ends, answers: list[bytes]) -> None:
    """One that closes its end, or dies, before it has answered is found out at once."""

    async def leave() -> None:
        agreement = asyncio.create_task(channel.agree(session(ends.ours)))
        for answer in answers:
            ends.theirs.send(answer)
        nr_asked = 0
        while nr_asked <= len(answers):
            await asyncio.sleep(0)
            nr_asked += len(ends.asked())
        ends.theirs.close()
        await agreement

    with pytest.raises(Refused) as caught:
        asyncio.run(leave())
    assert str(caught.value) == f"{REFUSED}api exchange: the process has closed the channel"


def test_process_that_was_gone_before_is_refused(ends: Ends) -> None:
    """Nobody is there to be asked."""
    ends.theirs.close()
    with pytest.raises(Refused, match="api exchange: the process has closed the channel"):
        ends.agree()


def test_socket_that_is_full_is_refused(ends: Ends) -> None:
    """Where there is no room to ask, nothing waits for it, though the socket blocks."""
    ends.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    with pytest.raises(BlockingIOError):
        while True:
            ends.ours.send(b"?", socket.MSG_DONTWAIT)
    with pytest.raises(Refused, match="the channel cannot be served: Resource temporarily"):
        ends.agree()


def test_descriptors_in_an_answer_are_not_kept(ends: Ends) -> None:
    """What a process sends along with its answer is closed."""
    read_fd, write_fd = os.pipe()
    socket.send_fds(ends.theirs, [V2], [write_fd])
    os.close(write_fd)
    assert ends.agree() == protocol_of(Api.V2)
    assert os.read(read_fd, 1) == b""
    os.close(read_fd)


def test_what_comes_behind_the_answer_is_left_there(ends: Ends) -> None:
    """A fault that a thread of the process sends at once is for whoever serves it."""
    assert ends.agree(V2, b"a fault") == protocol_of(Api.V2)
    assert ends.ours.recv(64) == b"a fault"


def test_silent_process_keeps_nobody_waiting(ends: Ends) -> None:
    """While one process says nothing, another has answered."""
    other = Ends()

    async def both() -> int:
        silent = asyncio.create_task(channel.agree(session(ends.ours)))
        other.theirs.send(V2)
        protocol = await channel.agree(session(other.ours))
        assert not silent.done()
        ends.theirs.send(V2)
        assert await silent == protocol
        return protocol

    assert asyncio.run(both()) == protocol_of(Api.V2)
    other.close()


def test_answer_that_somebody_took_is_waited_for(ends: Ends) -> None:
    """Where a copy of the descriptor reads it first, nobody is held up by a socket that blocks."""
    copy = ends.ours.dup()

    async def steal() -> int:
        loop = asyncio.get_running_loop()
        stolen: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(copy, lambda: stolen.set_result(copy.recv(64)))
        agreement = asyncio.create_task(channel.agree(session(ends.ours)))
        ends.theirs.send(b"stolen")
        assert await stolen == b"stolen"
        loop.remove_reader(copy)
        ends.theirs.send(V2)
        return await agreement

    assert asyncio.run(steal()) == protocol_of(Api.V2)
    copy.close()


def test_userfaultfd_is_asked_nothing() -> None:
    """A session without a channel is served as the kernel's."""
    plain = Session(-1, None, 0, empty_map(), (), None)
    assert asyncio.run(channel.agree(plain)) == protocol_of(None)
