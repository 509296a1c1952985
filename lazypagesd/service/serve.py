"""``lazypagesd serve``: a daemon that any restore tool can hand its faults over to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import grp
import logging
import os
import socket
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from lazypagesd.engine.custody import Custody
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.restore import Restore
from lazypagesd.errors import ConfigError
from lazypagesd.handoff import native
from lazypagesd.kernel import fdpass, uffd
from lazypagesd.service import inherited, systemd
from lazypagesd.service.admission import Admission
from lazypagesd.service.custody import custody_of
from lazypagesd.service.dropin import raise_descriptor_limit, stop_interrupting
from lazypagesd.service.estate import Estate, take_stock
from lazypagesd.service.native_handoff import NativeHandoff
from lazypagesd.service.options import ServeOptions
from lazypagesd.service.restores import Restores

log = logging.getLogger(__name__)

SOCKET_NAME = "handoff.socket"
SOCKET_UMASK = 0o117  # for its owner and group
BACKLOG = 128


def run(options: ServeOptions) -> int:
    """Serve restores until a signal, and what has finished to its end; return the exit code.

    Raises LazyPagesError or OSError when it cannot begin.
    """
    stop_interrupting()
    raise_descriptor_limit()
    gid = group_of(options.config.group)
    passed, left = inherited.take(systemd.take_sockets(os.environ))
    custody = custody_of(os.environ, left)
    estate = inherit(left, custody)
    handoffs = Handoffs(Admission(options.config.limits, gid))
    restores = Restores(handoffs.begin, resume=handoffs.resume, custody=custody, stays=True)
    with taken_over(passed) if passed else listening(options.runtime_dir, gid) as listener:
        listener.setblocking(False)
        ready = functools.partial(systemd.notify, os.environ, "READY=1")
        serving = restores.serve(listener, shared=bool(passed), ready=ready, estate=estate)
        return asyncio.run(serving)


def inherit(left: Set[int], custody: Custody) -> Estate:
    """Return what another daemon has *left*; close what is of no use any more."""
    estate = take_stock(left)
    useless = left - estate.claims()
    if not estate.is_whole:
        # One may be of a session that cannot be read: its process waits, and reads no zero.
        useless = {fd for fd in useless if uffd.describe(fd) is None}
    custody.drop(useless)
    fdpass.close_all(useless)
    return estate


@dataclass(frozen=True, slots=True)
class Handoffs:
    """How connections become hand-offs."""

    admission: Admission

    @property
    def limits(self) -> native.Limits:
        """Those of one restore."""
        return native.Limits(self.admission.limits.sessions, self.admission.limits.regions)

    def begin(self, connection: socket.socket, restores: Restores) -> NativeHandoff:
        """Return the hand-off of a new *connection*, which it takes over."""
        protocol = native.Protocol(self.limits)
        return NativeHandoff(connection, restores, self.admission, protocol)

    def resume(self, restore: Restore, restores: Restores) -> NativeHandoff:
        """Return the hand-off of a *restore* that another daemon has left."""
        assert restore.record is not None, "it was left by that"
        left = restore.record.message
        protocol = native.Protocol.take_over(
            self.limits,
            left.native,
            {source.fd for each in restore.live for source in each.sources if source.fd >= 0},
            over=restore.released
            or left.HasField("criu_connection")
            or left.native.HasField("listener"),
        )
        connection = left_connection(left)
        return NativeHandoff(connection, restores, self.admission, protocol, restore)


def left_connection(left: record_pb2.Restore) -> socket.socket:
    """Return the client's connection, or, where it has been closed, one that is at its end."""
    if left.HasField("connection"):
        return socket.socket(fileno=left.connection)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    ours.setblocking(False)
    return ours


@contextlib.contextmanager
def listening(runtime_dir: Path, gid: int) -> Iterator[socket.socket]:
    """Listen at a socket in *runtime_dir*, made if need be, that the group *gid* may connect to;
    the socket is removed at the end."""
    runtime_dir.mkdir(mode=0o755, exist_ok=True)
    path = runtime_dir / SOCKET_NAME
    remove_stale(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        before = os.umask(SOCKET_UMASK)
        try:
            listener.bind(os.fspath(path))
            os.chown(path, -1, gid)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        yield listener
        path.unlink(missing_ok=True)


def group_of(name: str | None) -> int:
    """Return the group called *name*, or the daemon's own; ConfigError if there is none."""
    try:
        return os.getegid() if name is None else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"group: {name!r}: no such group: make it, or name another") from None


def taken_over(passed: dict[int, str]) -> socket.socket:
    """Return the one socket that systemd *passed*, by descriptor and name, if it will do."""
    if len(passed) != 1:
        fdpass.close_all(passed)
        raise ConfigError(f"LISTEN_FDS: {len(passed)} sockets were passed, not 1")
    [(fd, name)] = passed.items()
    listener = socket.socket(fileno=fd)
    if (listener.family, listener.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        listener.close()
        raise ConfigError(
            f"{name}: not of AF_UNIX and SOCK_SEQPACKET: set ListenSequentialPacket="
        )
    return listener


def remove_stale(path: Path) -> None:
    """Remove the socket that a daemon left at *path*; ConfigError if one still listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        code = probe.connect_ex(os.fspath(path))
    if code == 0:
        raise ConfigError(f"{path}: another daemon listens there: choose another --runtime-dir")
    if code == errno.ECONNREFUSED:
        path.unlink()
