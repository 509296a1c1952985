"""``lazypagesd serve``: a daemon that any restore tool can hand its faults over to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lazypagesd.engine.restore import Restore
from lazypagesd.errors import ConfigError
from lazypagesd.handoff import native
from lazypagesd.kernel import fdpass
from lazypagesd.service import reload, systemd, upgrade
from lazypagesd.service.admission import Admission
from lazypagesd.service.dropin import raise_descriptor_limit, stop_interrupting
from lazypagesd.service.estate import left_connection, left_listener
from lazypagesd.service.native_handoff import NativeHandoff
from lazypagesd.service.options import ServeOptions
from lazypagesd.service.restores import Restores
from lazypagesd.service.succession import Inheritance, keep, leave_word

log = logging.getLogger(__name__)

SOCKET_NAME = "handoff.socket"
SOCKET_UMASK = 0o117  # for its owner and group
SOCKET_PATH_MAX = 107  # in bytes: sun_path has 108, with the zero at the end
BACKLOG = 128


def run(options: ServeOptions) -> int:
    """Serve restores until a signal, and what has finished to its end; return the exit code.

    Raises LazyPagesError or OSError when it cannot begin.
    """
    stop_interrupting()
    raise_descriptor_limit()
    gid = group_of(options.config.group)
    inheritance = Inheritance.take(os.environ)
    custody = keep(os.environ, inheritance, wanted=options.keeper)
    admission = Admission(options.config.limits, gid)
    handoffs = Handoffs(admission)
    restores = Restores(handoffs.begin, resume=handoffs.resume, custody=custody, stays=True)

    def ready() -> None:
        reload.at_signal(options.reread, admission)
        systemd.notify(os.environ, "READY=1")

    with listening(options.runtime_dir, gid, inheritance) as listener:
        listener.setblocking(False)
        connections = inheritance.connections(listener, custody)
        inheritance.close_useless(custody)
        upgrade.publish(options.runtime_dir, inheritance.estate)
        serving = restores.serve(
            listener,
            shared=bool(inheritance.sockets),
            ready=ready,
            estate=inheritance.estate,
            connections=connections,
        )
        return asyncio.run(serving)


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
        connection = left_connection(left, "connection", socket.SOCK_SEQPACKET)
        return NativeHandoff(connection, restores, self.admission, protocol, restore)


@contextlib.contextmanager
def listening(runtime_dir: Path, gid: int, inheritance: Inheritance) -> Iterator[socket.socket]:
    """Listen at the socket that was passed or left; else at one in *runtime_dir*, made if need be,
    that the group *gid* may connect to.  The latter is removed at the end."""
    if inheritance.sockets:
        with taken_over(inheritance.sockets) as listener:
            yield listener
        return
    path = runtime_dir / SOCKET_NAME
    if (left := inheritance.estate.daemon) is not None:
        listener = left_listener(left, socket.SOCK_SEQPACKET)
    else:
        check_length(path)
        runtime_dir.mkdir(mode=0o755, exist_ok=True)
        listener = listen(path, gid)
        leave_word(listener.fileno())
    with listener:
        yield listener
        path.unlink(missing_ok=True)


def listen(path: Path, gid: int) -> socket.socket:
    """Return a socket that listens at *path*, where none is yet."""
    remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(SOCKET_UMASK)
    try:
        listener.bind(os.fspath(path))
        os.chown(path, -1, gid)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


def check_length(path: Path) -> None:
    """Raise ConfigError where no socket can be at *path*."""
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise ConfigError(
            f"{path}: too long for a socket (over {SOCKET_PATH_MAX} bytes):"
            " choose another --runtime-dir"
        )


def group_of(name: str | None) -> int:
    """Return the group called *name*, which the configuration has found, or the daemon's own."""
    return os.getegid() if name is None else grp.getgrnam(name).gr_gid


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
