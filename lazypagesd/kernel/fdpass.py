"""One message of a unix socket, with the descriptors and the sender that came with it."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

# Not in Python 3.11's socket module; include/linux/socket.h and asm-generic/socket.h.
SCM_PIDFD = 0x04
SO_PASSPIDFD = 76
SO_PEERGROUPS = 59

# struct ucred: pid, uid, gid.
UCRED = struct.Struct("3i")

# What Python gives getsockopt() room for.
MAX_OPTION_SIZE = 1024

# What Linux lets one message carry (SCM_MAX_FD), in ints.
MAX_FDS = 253


@dataclass(slots=True)
class Message:
    """What one recvmsg() brought.

    Owns *fds* and *pidfd* until they are taken; close() closes what is left.  *truncated* says
    that there was no number for one of them.
    """

    data: bytes
    fds: list[int] = field(default_factory=list)
    pid: int | None = None
    pidfd: int | None = None
    truncated: bool = False

    def take_fd(self) -> int | None:
        """Hand over the first descriptor, or None."""
        return self.fds.pop(0) if self.fds else None

    def take_pidfd(self) -> int | None:
        """Hand over the sender's pidfd, or None."""
        pidfd, self.pidfd = self.pidfd, None
        return pidfd

    def close(self) -> None:
        """Close every descriptor that nobody took."""
        close_all(self.fds)
        self.fds.clear()
        if (pidfd := self.take_pidfd()) is not None:
            os.close(pidfd)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors, each exactly once."""
    for fd in fds:
        os.close(fd)


def ask_for_sender(sock: socket.socket) -> bool:
    """Make every message to *sock*, and to what it accepts, name its sender.

    False if the kernel cannot give a pidfd with it.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
    except OSError:
        return False
    return True


def peer_uid(sock: socket.socket) -> int:
    """Return the user who connected, or who was connected to when that was."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    return int(UCRED.unpack(credentials)[1])


def peer_groups(sock: socket.socket) -> set[int]:
    """Return the groups that whoever connected was in, when that was; of more than 256 no more
    than the first."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    try:
        supplementary = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MAX_OPTION_SIZE)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        supplementary = b""
    return {int(UCRED.unpack(credentials)[2]), *ints(supplementary)}


def receive(sock: socket.socket, size: int) -> Message:
    """Receive at most *size* bytes, and what comes with the first of them.

    Raises BlockingIOError when nothing is there.  The buffer holds all that Linux lets a message
    carry; where no descriptor number is left for what came, it is missing.
    """
    return _receive(sock, size, socket.MSG_CMSG_CLOEXEC)


def peek(sock: socket.socket, size: int) -> Message:
    """Do as receive(), and leave it there: consume() takes it.

    Of a stream the kernel hands out descriptors that belong to later bytes, too (tried on 6.18):
    only consume() knows how many came with these.
    """
    return _receive(sock, size, socket.MSG_CMSG_CLOEXEC | socket.MSG_PEEK)


def consume(sock: socket.socket, message: Message) -> int | None:
    """Take from *sock* what peek() has brought as *message*; return how many descriptors came
    with it, or None where there was no number left for one of them."""
    taken = receive(sock, max(len(message.data), 1))
    nr_fds = None if taken.truncated else len(taken.fds)
    taken.close()
    return nr_fds


def _receive(sock: socket.socket, size: int, flags: int) -> Message:
    space = socket.CMSG_SPACE(MAX_FDS * 4) + socket.CMSG_SPACE(UCRED.size) + socket.CMSG_SPACE(4)
    data, ancillary, received, _address = sock.recvmsg(size, space, flags)
    message = Message(data, truncated=bool(received & socket.MSG_CTRUNC))
    for level, kind, payload in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_RIGHTS:
            message.fds += ints(payload)
        elif kind == socket.SCM_CREDENTIALS:
            message.pid = UCRED.unpack(payload[: UCRED.size])[0]
        elif kind == SCM_PIDFD:
            [pidfd] = ints(payload)
            # A negative errno in its place: no descriptor was left for it.
            message.pidfd = pidfd if pidfd >= 0 else None
    return message


def ints(payload: bytes) -> list[int]:
    """Unpack descriptor numbers, dropping a tail that is no whole one."""
    numbers = array.array("i")
    numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    return numbers.tolist()
