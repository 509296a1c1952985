"""What a daemon that has ended left behind: its restores and their sessions, as values.

How it is found is stock.py, which most daemons do without.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lazypagesd.engine import restore_record
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.record import RecordFile
from lazypagesd.kernel.descriptors import is_socket

if TYPE_CHECKING:
    from lazypagesd.engine.recorder import Recorder
    from lazypagesd.engine.state import State

DAEMON_MEMFD_NAME = "lazypagesd-daemon"


@dataclass(slots=True)
class LeftSession:
    """A session; whoever takes it over owns *state*, and what *record* names."""

    record: record_pb2.Session
    state: State

    def claims(self) -> Iterator[int]:
        """Yield the descriptors that belong to it, those of children to be included."""
        yield self.state.fd
        yield from restore_record.session_fds_of(self.record)
        yield from (source.fd for source in self.record.sources)
        yield from self.state.forks


@dataclass(slots=True)
class LeftRestore:
    """A restore; whoever takes it over owns *file*, and what *record* names."""

    record: record_pb2.Restore
    file: RecordFile
    sessions: list[LeftSession] = field(default_factory=list)

    def claims(self) -> Iterator[int]:
        """Yield the descriptors that belong to it."""
        yield self.file.fd
        yield from restore_record.fds_of(self.record)
        for session in self.sessions:
            yield from session.claims()


@dataclass(slots=True)
class Estate:
    """All restores that were left, by their numbers; *is_whole* unless some of it is broken.

    *daemon* is what the next daemon needs to begin, in *daemon_file*, which stays open for the
    one that comes after it; there is none where a service manager passes all that is needed.
    """

    restores: dict[int, LeftRestore] = field(default_factory=dict)
    daemon: record_pb2.Daemon | None = None
    daemon_file: RecordFile | None = None
    recorders: list[Recorder] = field(default_factory=list)
    is_whole: bool = True
    disputed: set[int] = field(default_factory=set)  # connections, which are nobody's for sure

    def claims(self) -> set[int]:
        """Return the descriptors that it is made of."""
        claims = {fd for restore in self.restores.values() for fd in restore.claims()}
        claims |= self.disputed
        claims.update(recorder.fd for recorder in self.recorders)
        if self.daemon is not None and self.daemon_file is not None:
            claims.add(self.daemon_file.fd)
            names = ("listener", "images", "admin")
            named = [name for name in names if self.daemon.HasField(name)]
            claims.update(getattr(self.daemon, name) for name in named)
        return claims


def is_listening(fd: int) -> bool:
    """Whether *fd* is a socket at which connections are accepted."""
    if not is_socket(fd):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def is_connected_to(fd: int, listener: socket.socket) -> bool:
    """Whether *fd* is a connection that was accepted at *listener*."""
    if not is_socket(fd):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        return (
            sock.family == socket.AF_UNIX
            and sock.type == listener.type
            and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            and sock.getsockname() == listener.getsockname()
        )


def left_listener(left: record_pb2.Daemon, kind: int) -> socket.socket:
    """Return the socket at which the daemon accepted, or, where it was closed, one of the same
    *kind* that nobody knows."""
    if left.HasField("listener"):
        return socket.socket(fileno=left.listener)
    nowhere = socket.socket(socket.AF_UNIX, kind)
    nowhere.bind("")
    nowhere.listen()
    return nowhere


def left_connection(record: record_pb2.Restore, name: str, kind: int) -> socket.socket:
    """Return the connection in this field, or, where it has been closed, one of the same *kind*
    that is at its end."""
    if record.HasField(name):
        return socket.socket(fileno=getattr(record, name))
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    theirs.close()
    ours.setblocking(False)
    return ours
