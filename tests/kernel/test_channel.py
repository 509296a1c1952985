"""The exchange at the head of a channel, by the bytes."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import replace

import pytest

from lazypagesd.kernel.channel import (
    ALL_TYPES,
    API,
    BIT_WRITE,
    OPERATIONS,
    Api,
    Offer,
    Type,
    ask,
    check,
    is_message,
    reason_against,
    request,
    understand,
)

V1_ANSWER = Offer(0xAA, BIT_WRITE, OPERATIONS, 0)
V2_ANSWER = Offer(0xAB, BIT_WRITE | ALL_TYPES << 12, OPERATIONS, ALL_TYPES)


def test_requests_are_these_bytes() -> None:
    """v1 asks for no feature, v2 for every type that is understood."""
    assert request(Api.V1).pack() == struct.pack("=4Q", 0xAA, 0, 0, 0)
    assert request(Api.V2).pack() == struct.pack("=4Q", 0xAB, 0, 0, 0x3F)


@pytest.mark.parametrize(
    ("types", "bits"),
    [(Type.PAGEFAULT, 0x1000), (Type.PAGEFAULT | Type.FORK, 0x3000)],
)
def test_bits_are_those_of_the_patches(types: Type, bits: int) -> None:
    """Page faults alone are announced as 0x1000, with forks as 0x3000."""
    check(Api.V2, Offer(0xAB, bits | BIT_WRITE, OPERATIONS, types))


def test_answer_in_full_is_understood() -> None:
    """Both APIs can be agreed on, with or without the bit that tells writes."""
    check(Api.V1, V1_ANSWER)
    check(Api.V1, replace(V1_ANSWER, bits=0))
    check(Api.V2, V2_ANSWER)


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        pytest.param(Api.V1, Offer(0, 0, 0, 0), id="refused"),
        pytest.param(Api.V1, V2_ANSWER, id="another api"),
        pytest.param(Api.V2, V1_ANSWER, id="another api, too"),
        pytest.param(Api.V1, replace(V1_ANSWER, features=1), id="features in v1"),
        pytest.param(Api.V1, replace(V1_ANSWER, bits=3), id="write-protect faults"),
        pytest.param(Api.V1, replace(V1_ANSWER, bits=0x1001), id="types in v1"),
        pytest.param(
            Api.V2,
            replace(V2_ANSWER, features=0x7F, bits=0x7F001),
            id="a type of tomorrow",
        ),
        pytest.param(Api.V2, replace(V2_ANSWER, bits=0x1001), id="bits of other types"),
        pytest.param(Api.V2, Offer(0xAB, 0x2001, OPERATIONS, 2), id="no page faults"),
        pytest.param(Api.V2, replace(V2_ANSWER, ioctls=OPERATIONS | 1), id="more operations"),
        pytest.param(Api.V2, replace(V2_ANSWER, ioctls=0), id="no operations"),
    ],
)
def test_what_is_not_understood_is_refused(api: Api, answer: Offer) -> None:
    """An answer with anything else in it, or less than it takes, is EINVAL."""
    with pytest.raises(OSError, match="api exchange: ") as caught:
        check(api, answer)
    assert caught.value.errno == errno.EINVAL


def test_answer_says_which_messages_there_are() -> None:
    """v1 has page faults alone, v2 what it says; zeros are for what is not known."""
    assert understand(Api.V1, V1_ANSWER.pack()) == Type.PAGEFAULT
    assert understand(Api.V2, V2_ANSWER.pack()) == ALL_TYPES
    assert understand(Api.V2, bytes(32)) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "the process has closed the channel"),
        (bytes(31), "31 bytes instead of 32"),
        (bytes(33), "33 bytes instead of 32"),
        (V1_ANSWER.pack(), "asked for 0xab, answered 0xaa"),
    ],
)
def test_other_answers_are_refused(answer: bytes, reason: str) -> None:
    """Nothing but 32 bytes, which are understood here, is an answer."""
    with pytest.raises(OSError, match=reason) as caught:
        understand(Api.V2, answer)
    assert caught.value.errno == errno.EINVAL


def test_request_never_waits() -> None:
    """Where there is no room, or nobody any more, asking fails at once."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        with pytest.raises(BlockingIOError):
            while True:
                ask(ours, Api.V2)
        theirs.close()
        with pytest.raises(ConnectionError):
            ask(ours, Api.V2)


@pytest.mark.parametrize(
    ("family", "kind", "reason"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "it is not of AF_UNIX and SOCK_SEQPACKET"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "it is not of AF_UNIX and SOCK_SEQPACKET"),
        (socket.AF_UNIX, socket.SOCK_SEQPACKET, "it is not connected: hand over one end of"),
    ],
)
def test_other_sockets_are_no_channels(
    family: socket.AddressFamily, kind: socket.SocketKind, reason: str
) -> None:
    """A channel is one end of a SOCK_SEQPACKET pair, and nothing else is."""
    with socket.socket(family, kind) as sock:
        assert (reason_against(sock.fileno()) or "").startswith(reason)
    assert reason_against(0) == "it is no socket"


def test_end_of_a_pair_is_a_channel() -> None:
    """It is, also once nobody is at the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert reason_against(ours.fileno()) is None
        theirs.close()
        assert reason_against(ours.fileno()) is None


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        pytest.param(struct.pack("=2Q", 1, 0x1000), True, id="a fault"),
        pytest.param(struct.pack("=4Q", 4, 0x1000, 6, 0x2000), True, id="as long as an answer"),
        pytest.param(struct.pack("=4Q", *[0x7F0000001001] * 4), True, id="faults of v1"),
        pytest.param(V1_ANSWER.pack(), False, id="v1"),
        pytest.param(V2_ANSWER.pack(), False, id="v2"),
        pytest.param(bytes(API.size), False, id="neither"),
        pytest.param(b"", False, id="closed"),
        pytest.param(b"?" * 31, False, id="garbage"),
    ],
)
def test_answer_is_told_from_what_comes_before_it(packet: bytes, expected: bool) -> None:
    """What a process says that runs already is no answer, of whatever length it is."""
    assert is_message(packet) == expected
