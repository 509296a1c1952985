"""How a daemon begins: as the first, or as the one that comes after another."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from lazypagesd.engine.custody import Custody, NoCustody
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.record import RecordFile
from lazypagesd.keeper import TAKEN_OVER_NAME, Keeper
from lazypagesd.kernel import fdpass, uffd
from lazypagesd.service import inherited, systemd
from lazypagesd.service.custody import capacity_of, custody_of
from lazypagesd.service.estate import DAEMON_MEMFD_NAME, Estate, is_connected_to


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a daemon was started with: *sockets* by descriptor and name, and what another one has
    left under the numbers *left*, which amounts to *estate*."""

    sockets: dict[int, str]
    left: set[int]
    taken_over_fd: int | None
    estate: Estate

    @classmethod
    def take(cls, environment: Mapping[str, str]) -> Inheritance:
        """Take what was passed; nothing else may be open yet."""
        sockets, left = inherited.take(systemd.take_sockets(environment))
        taken_over_fd = next((fd for fd, name in sockets.items() if name == TAKEN_OVER_NAME), None)
        if taken_over_fd is not None:
            del sockets[taken_over_fd]
        return cls(sockets, left, taken_over_fd, estate_of(left))

    def connections(self, listener: socket.socket, custody: Custody) -> list[socket.socket]:
        """Return connections to *listener* that are nobody's: nothing has been asked there yet.

        The caller owns them, and *custody* keeps them no more.
        """
        nobodys = self.left - self.estate.claims()
        found = [fd for fd in nobodys if is_connected_to(fd, listener) and not is_over(fd)]
        self.left.difference_update(found)
        custody.drop(found)
        return [socket.socket(fileno=fd) for fd in found]

    def close_useless(self, custody: Custody) -> None:
        """Close what was left and is nobody's."""
        useless = self.left - self.estate.claims()
        if not self.estate.is_whole:
            # One may be of a session that cannot be read: its process waits, and reads no zero.
            useless = {fd for fd in useless if uffd.describe(fd) is None}
        custody.drop(useless)
        fdpass.close_all(useless)


def estate_of(left: set[int]) -> Estate:
    """Return what the descriptors that were *left* amount to."""
    if not left:
        return Estate()
    # Here, because it brings the engine with it, which whoever is the first does not wait for.
    from lazypagesd.service.stock import take_stock

    return take_stock(left)


def is_over(fd: int) -> bool:
    """Whether either end has closed a connection, and nothing is left to be read from it."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True


def keep(environment: Mapping[str, str], inheritance: Inheritance, *, wanted: bool) -> Custody:
    """Start a keeper, if it is *wanted* and of any use, and return what keeps descriptors.

    A service manager that stores none for us ends whatever a keeper would start.
    """
    if not wanted or ("NOTIFY_SOCKET" in environment and not capacity_of(environment)):
        return NoCustody()
    keeper = Keeper(environment)
    if inheritance.left:
        keeper.arm()
    keeper.start(inheritance.taken_over_fd)
    keeper.tell_taken_over()
    return custody_of(environment, inheritance.left, keeper)


def leave_word(
    listener_fd: int, images_fd: int | None = None, admin_fd: int | None = None
) -> None:
    """Note what the next daemon needs to begin, if no service manager passes it: in a memfd that
    is open as long as this process."""
    file = RecordFile.create(DAEMON_MEMFD_NAME, 64)
    message = record_pb2.Daemon(listener=listener_fd, images=images_fd, admin=admin_fd)
    file.write(message.SerializeToString())
    file.unmap()
