"""The exchange at the head of a channel, by the bytes."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import replace

import pytest

from lazypagesd.kernel.channel import (
    ALL_TYPES,
    BIT_WRITE,
    OPERATIONS,
    Api,
    Offer,
    Type,
    check,
    negotiate,
    request,
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


@pytest.mark.parametrize("size", [0, 31, 33])
def test_packet_of_another_size_is_refused(size: int) -> None:
    """Nothing but 32 bytes is an answer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        if size:
            theirs.send(bytes(size))
        else:
            theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError, match=f"{size} bytes instead of 32"):
            negotiate(ours, Api.V2)
