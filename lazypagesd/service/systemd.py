"""What systemd tells a service, and is told by it, without its library.

Some facts: sockets are passed as descriptors 3 ... 3 + LISTEN_FDS - 1, meant for us if LISTEN_PID
is our pid; LISTEN_FDNAMES names them, separated by colons.  NOTIFY_SOCKET is the address of a
datagram socket, an abstract one where it begins with @.  See man 3 sd_listen_fds and man 3
sd_notify.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

FIRST_FD = 3


def take_sockets(environment: Mapping[str, str]) -> dict[int, str]:
    """Return the descriptors that were passed, with their names; the caller owns them."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(environment.get("LISTEN_FDS", "0"))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    passed = {FIRST_FD + i: names[i] if i < len(names) else "" for i in range(count)}
    for fd in passed:
        os.set_inheritable(fd, False)
    return passed


def connect_notify(environment: Mapping[str, str]) -> socket.socket | None:
    """Return a connection to the service manager, or None without one; the caller owns it."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    sock.connect("\0" + address[1:] if address.startswith("@") else address)
    return sock


def notify(environment: Mapping[str, str], state: str) -> None:
    """Tell the service manager *state*, such as ``READY=1``; without one, do nothing."""
    if (sock := connect_notify(environment)) is not None:
        with sock:
            sock.send(state.encode())
