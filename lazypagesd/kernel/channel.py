"""The exchange at the head of a channel: the socket that stands in for a userfaultfd.

Some facts (client/wire.h, and docs/explanation/protocols.md): who serves asks with an API and the
features that it wants; the process answers with what there is, or with zeros alone (EINVAL).  The
features are the message types, 1 << (type - 1), which v2 announces in *bits* as well, shifted by
12; the low bits are those that may be set in the address of a fault.

Whether the socket blocks is of no account: it is never asked to, since a process that has a copy
could change that at any time.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Self

from lazypagesd.kernel.descriptors import is_socket
from lazypagesd.native import lib

API = struct.Struct("=4Q")  # struct lpd_wire_api
PACKET_MAX = 64 * 16  # of v2's messages
PAGE_SIZE = 4096
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


MAPPING_TYPES = Type.REMAP | Type.REMOVE | Type.UNMAP | Type.ARGUMENT
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


CLOSED = "the process has closed the channel"
# The answer of who does not know the API, or a feature.
UNKNOWN = Offer(0, 0, 0, 0)


def refusal(reason: str) -> OSError:
    """Return the error that one end meets when it does not understand the other."""
    return OSError(errno.EINVAL, f"api exchange: {reason}")


def protocol_of(api: Api | None) -> int:
    """Return how a descriptor with such messages is served; without an API it is a userfaultfd."""
    return {
        None: lib.LPD_PROTOCOL_UFFD_MSG,
        Api.V1: lib.LPD_PROTOCOL_CHANNEL_V1,
        Api.V2: lib.LPD_PROTOCOL_CHANNEL_V2,
    }[api]


def request(api: Api) -> Offer:
    """Return what to ask a process for: everything that is understood here."""
    return Offer(api, 0, 0, ALL_TYPES if api is Api.V2 else 0)


def is_message(packet: bytes) -> bool:
    """Whether *packet* is no answer, but what a process says that runs already, and had been asked
    by a daemon that has died."""
    word = int.from_bytes(packet[:8], sys.byteorder)
    return len(packet) % 8 == 0 and (0 < word <= len(Type) or word >= PAGE_SIZE)


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


def ask(channel: socket.socket, api: Api) -> None:
    """Ask the process at the other end, which need not be there yet.

    Raises OSError: BlockingIOError if the socket is full, whether it blocks or not.
    """
    # Of which fills use a quarter, so that there always is room for what cannot wait.
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    channel.send(request(api).pack(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def understand(api: Api, packet: bytes) -> Type | None:
    """Return which types of messages a process has answered with; None if it does not know *api*.

    Raises OSError (EINVAL) if the answer is not understood here.
    """
    if not packet:
        raise refusal(CLOSED)
    answer = Offer.parse(packet)
    if answer == UNKNOWN:
        return None
    check(api, answer)
    return Type(answer.features) if api is Api.V2 else Type.PAGEFAULT


def reason_against(fd: int) -> str | None:
    """Return why *fd* can be no channel."""
    if not is_socket(fd):
        return "it is no socket"
    sock = socket.socket(fileno=fd)
    try:
        if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            return "it is not of AF_UNIX and SOCK_SEQPACKET"
        sock.getpeername()
    except OSError:
        return "it is not connected: hand over one end of a socketpair()"
    finally:
        sock.detach()
    return None
