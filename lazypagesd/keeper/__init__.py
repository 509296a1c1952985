"""The keeper: a process that has whatever the daemon has open, and outlives it; see keeper.h.

Below everything that opens descriptors, because it knows nothing of what they are for.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

from lazypagesd.keeper._keeper import ffi, lib

# The name of what a daemon that a keeper has started writes to when it has taken over.
TAKEN_OVER_NAME = "taken-over"
# Variables that the keeper sets for the daemon that it starts.
QUICK_DEATHS = "LAZYPAGESD_QUICK_DEATHS"
ADDED = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", QUICK_DEATHS)


class Keeper:
    """What a keeper needs, for as long as the daemon lives."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Prepare one that gives what it keeps to the service manager of *environment*, or, where
        there is none, to a daemon that it starts as this one was started."""
        shared = ffi.from_buffer("uint8_t[]", mmap.mmap(-1, mmap.PAGESIZE))
        address = notify_address(environment.get("NOTIFY_SOCKET", ""))
        variables = [f"{k}={v}" for k, v in environment.items() if k not in ADDED]
        self._command = strings(command())
        self._environment = strings(variables, nr_free=len(ADDED) + 1)
        self._address = ffi.new("char[]", address)
        self._pidfd = os.pidfd_open(os.getpid())
        self._keep_alive = (shared, *self._command[1], *self._environment[1])
        self._pointer = ffi.new("struct lpd_keeper *")
        self._shared = ffi.cast("struct lpd_keeper_shared *", shared)
        self._shared.over = 1
        self._shared.taken_over_fd = -1
        self._pointer.shared = self._shared
        self._pointer.notify_address = self._address
        self._pointer.notify_length = len(address)
        self._pointer.daemon_pidfd = self._pidfd
        self._pointer.command = self._command[0]
        self._pointer.environment = self._environment[0]
        self._pointer.nr_environment = len(variables)
        self._pointer.nr_quick = int(environment.get(QUICK_DEATHS, "0"))

    def start(self, taken_over_fd: int | None = None) -> None:
        """Start it, to end with the daemon until it is armed.

        *taken_over_fd* is where the keeper that has started us waits for us to take over.
        """
        self._shared.taken_over_fd = -1 if taken_over_fd is None else taken_over_fd
        self._start()

    def start_again(self) -> None:
        """Start another one in the place of one that has ended."""
        os.close(self.pidfd)
        os.waitpid(self._pid, 0)
        self._start()

    def _start(self) -> None:
        pid = lib.lpd_keeper_start(self._pointer)
        if pid < 0:
            raise OSError(-pid, f"the keeper cannot be started: {os.strerror(-pid)}")
        self._pid: int = pid
        self.pidfd = os.pidfd_open(pid)  # readable when it has ended

    def tell_taken_over(self) -> None:
        """Tell the keeper that has started us, if one has, that all is in our hands, and in those
        of a keeper of our own."""
        if (fd := self._shared.taken_over_fd) >= 0:
            os.write(fd, b"\0")
            self._shared.taken_over_fd = -1
            os.close(fd)

    @property
    def pid(self) -> int:
        """That of its process."""
        return self._pid

    def arm(self) -> None:
        """Let it do its work when the daemon dies: there is something to lose."""
        self._shared.over = 0

    def release(self) -> None:
        """Let it end with the daemon, which has nothing to lose any more."""
        self._shared.over = 1


def command() -> list[str]:
    """Return the command that this process was started with, wherever it works now."""
    first, *rest = sys.orig_argv[1:]
    script = Path(sys.argv[0])
    # Of a script, Python says in full what was started; a module it has found once before.
    return [sys.executable, first if first.startswith("-") else str(script.resolve()), *rest]


def strings(texts: list[str], nr_free: int = 1) -> tuple[object, list[object]]:
    """Return a char ** with room for *nr_free* further ones, and what it points to."""
    owned = [ffi.new("char[]", os.fsencode(text)) for text in texts]
    return ffi.new("char *[]", [*owned, *[ffi.NULL] * nr_free]), list(owned)


def notify_address(name: str) -> bytes:
    """Return the sockaddr_un of a NOTIFY_SOCKET; empty without one."""
    if not name:
        return b""
    path = os.fsencode(name)
    # An abstract address has no end but its length.
    path = b"\0" + path[1:] if path.startswith(b"@") else path + b"\0"
    return struct.pack("=H", 1) + path  # AF_UNIX
