"""The exchange at the head of a channel: the socket that stands in for a userfaultfd.

Some facts (client/wire.h, and docs/explanation/protocols.md): who serves asks with an API and the
features that it wants; the process answers with what there is, or with zeros alone (EINVAL).  The
features are the message types, 1 << (type - 1), which v2 announces in *bits* as well, shifted by
12; the low bits are those that may be set in the address of a fault.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from dataclasses import dataclass
from typing import Self

API = struct.Struct("=4Q")  # struct lpd_wire_api
V2_SHIFT = 12
SEND_BUFFER = 1 << 22  # the system allows less: net.core.wmem_max


class Api(enum.IntEnum):
    """Which messages a channel carries."""

    V1 = 0xAA
    V2 = 0xAB


class Type(enum.IntFlag):
    """The types of v2's messages, as features."""

    PAGEFAULT = 1 << 0
    FORK = 1 << 1
    REMAP = 1 << 2
    REMOVE = 1 << 3
    UNMAP = 1 << 4
    ARGUMENT = 1 << 5


ALL_TYPES = sum(Type)
BIT_WRITE = 1  # UFFD_BIT_WRITE; UFFD_BIT_WP (2) tells of faults that nobody here can answer
OPERATIONS = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 16 | 1 << 17  # LPD_OP_WAKE ... LPD_OP_END


@dataclass(frozen=True, slots=True)
class Offer:
    """What the two ends of a channel say to each other: a struct lpd_wire_api."""

    api: int
    bits: int
    ioctls: int
    features: int

    @classmethod
    def parse(cls, packet: bytes) -> Self:
        """Take a packet apart.  Raises OSError (EINVAL) if it has another size."""
        if len(packet) != API.size:
            raise refusal(f"{len(packet)} bytes instead of {API.size}")
        return cls(*API.unpack(packet))

    def pack(self) -> bytes:
        """Return the packet."""
        return API.pack(self.api, self.bits, self.ioctls, self.features)


def refusal(reason: str) -> OSError:
    """Return the error that one end meets when it does not understand the other."""
    return OSError(errno.EINVAL, f"api exchange: {reason}")


def request(api: Api) -> Offer:
    """Return what to ask a process for: everything that is understood here."""
    return Offer(api, 0, 0, ALL_TYPES if api is Api.V2 else 0)


def check(api: Api, answer: Offer) -> None:
    """Check that an answer holds nothing but what is understood here, and all that is needed.

    Raises OSError (EINVAL).
    """
    if answer.api != api:
        raise refusal(f"asked for {api:#x}, answered {answer.api:#x}")
    types = answer.features if api is Api.V2 else 0
    if answer.features & ~(ALL_TYPES if api is Api.V2 else 0):
        raise refusal(f"unknown features ({answer.features:#x})")
    if answer.bits & ~BIT_WRITE != types << V2_SHIFT:
        raise refusal(f"bits do not announce what the features do ({answer.bits:#x})")
    if api is Api.V2 and not types & Type.PAGEFAULT:
        raise refusal(f"features without page faults ({answer.features:#x})")
    if answer.ioctls != OPERATIONS:
        raise refusal(f"other operations ({answer.ioctls:#x})")


def negotiate(channel: socket.socket, api: Api) -> Offer:
    """Ask the process at the other end, and wait for its answer, as long as the socket's timeout.

    Raises OSError: EINVAL if the two do not understand each other.
    """
    # Of which fills use a quarter, so that there always is room for what cannot wait.
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    channel.send(request(api).pack())
    answer = Offer.parse(channel.recv(API.size + 1))
    check(api, answer)
    return answer
