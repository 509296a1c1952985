"""What keeps the daemon's descriptors: the service manager's store, and a keeper.

Some facts (man 3 sd_notify; tried with systemd 252): FDSTORE=1 gives the manager copies of the
descriptors beside the message, FDNAME= a name to all of them, FDSTOREREMOVE=1 with FDNAME= takes
them back.  It holds them while the service is down, and passes them like sockets when it starts.
One that polls an error is dropped unless FDPOLL=0 comes with it, and what the store has no room
for is dropped as well, neither of which it tells anybody.  Messages are handled in their order;
the descriptor beside BARRIER=1 is closed when those before it have been.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable, Mapping

from lazypagesd.engine.custody import Custody
from lazypagesd.errors import SessionError
from lazypagesd.keeper import Keeper
from lazypagesd.kernel import fdpass
from lazypagesd.service.systemd import connect_notify

# By systemd 254 and newer; by our own unit for older ones, which do not tell.
CAPACITY_NAMES = ("FDSTORE", "LAZYPAGESD_FDSTORE")

# Room for what the keeper stores beside what is in the store already.
KEEPER_ROOM = 64

# A manager that is busy (daemon-reload) answers in seconds; one that hangs, never.
BARRIER_TIMEOUT_S = 30.0


def capacity_of(environment: Mapping[str, str]) -> int:
    """Return how many descriptors the service manager stores for us; 0 without one."""
    if "NOTIFY_SOCKET" not in environment:
        return 0
    found = next((int(environment[name]) for name in CAPACITY_NAMES if name in environment), 0)
    return max(found - KEEPER_ROOM, 0)


def custody_of(environment: Mapping[str, str], held: Iterable[int], keeper: Keeper) -> Custody:
    """Return the store of the service manager, or, without one, the *keeper*; *held* is in the
    store already."""
    sock, capacity = connect_notify(environment), capacity_of(environment)
    if sock is None or not capacity:
        return KeeperCustody(keeper)
    return ManagerCustody(sock, capacity, held, keeper)


class KeeperCustody:
    """A keeper, which has what the daemon has, from the moment at which it has it."""

    def __init__(self, keeper: Keeper) -> None:
        """Rely on *keeper*, which has been started."""
        self.keeper = keeper

    def keep(self, fds: Iterable[int]) -> None:
        """Do nothing."""

    def drop(self, fds: Iterable[int]) -> None:
        """Do nothing."""

    def arm(self) -> None:
        """Let the keeper do its work if the daemon dies."""
        self.keeper.arm()

    def release(self) -> None:
        """Let the keeper end with the daemon."""
        self.keeper.release()


class ManagerCustody(KeeperCustody):
    """Owns its connection to the manager for as long as the process lives."""

    def __init__(
        self, sock: socket.socket, capacity: int, held: Iterable[int], keeper: Keeper
    ) -> None:
        """Store at most *capacity* descriptors, of which *held* are there already; the *keeper*
        stores what the daemon has yet to store when it dies.  Takes ownership of *sock*."""
        super().__init__(keeper)
        self._socket = sock
        self._capacity = capacity
        self._held = set(held)

    def keep(self, fds: Iterable[int]) -> None:
        """Return when *fds* are stored, each under its number.  Raises SessionError if there is
        no room, or the manager does not answer."""
        new = set(fds) - self._held
        if len(self._held) + len(new) > self._capacity:
            raise SessionError(
                f"the service manager keeps at most {self._capacity} descriptors for us:"
                " wait, or raise FileDescriptorStoreMax="
            )
        self._held |= new
        try:
            for fd in new:
                message = f"FDSTORE=1\nFDNAME={fd}\nFDPOLL=0".encode()
                socket.send_fds(self._socket, [message], [fd])
            self._barrier()
        except (SessionError, OSError):
            # Whoever gave them closes them, and another one may get the number.
            self.drop(new)
            raise

    def drop(self, fds: Iterable[int]) -> None:
        """Take *fds* out of the store."""
        for fd in self._held.intersection(fds):
            self._socket.send(f"FDSTOREREMOVE=1\nFDNAME={fd}".encode())
            self._held.remove(fd)

    def _barrier(self) -> None:
        readable, writable = os.pipe2(os.O_CLOEXEC)
        try:
            socket.send_fds(self._socket, [b"BARRIER=1"], [writable])
        finally:
            os.close(writable)
        poller = select.poll()
        poller.register(readable, 0)  # which waits for the hang-up alone
        try:
            if not poller.poll(BARRIER_TIMEOUT_S * 1000):
                raise SessionError(
                    f"the service manager has not answered in {BARRIER_TIMEOUT_S:g} s"
                )
        finally:
            fdpass.close_all([readable])
