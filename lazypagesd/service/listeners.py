"""The sockets of ``lazypagesd serve``: passed by systemd, left by another daemon, or made."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lazypagesd.errors import ConfigError
from lazypagesd.kernel import fdpass
from lazypagesd.service.estate import left_listener
from lazypagesd.service.succession import Inheritance, leave_word

# By type: where restore tools hand over, and where one asks what the daemon does.
NAMES: dict[int, str] = {
    socket.SOCK_SEQPACKET: "handoff.socket",
    socket.SOCK_STREAM: "admin.socket",
}
SOCKET_UMASK = 0o117  # for its owner and group
SOCKET_PATH_MAX = 107  # in bytes: sun_path has 108, with the zero at the end
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Listeners:
    """What the daemon listens at, without blocking; *admin* is None where systemd has passed no
    socket for it.  Where they are *shared*, others accept at them after us."""

    handoff: socket.socket
    admin: socket.socket | None
    shared: bool

    @classmethod
    def of(cls, found: dict[int, socket.socket], *, shared: bool) -> Listeners:
        """Return those *found*, by type, of which that for hand-offs is one."""
        for listener in found.values():
            listener.setblocking(False)
        return cls(found[socket.SOCK_SEQPACKET], found.get(socket.SOCK_STREAM), shared)


@contextlib.contextmanager
def listening(runtime_dir: Path, gid: int, inheritance: Inheritance) -> Iterator[Listeners]:
    """Listen at the sockets that were passed or left; else at some in *runtime_dir*, made if need
    be, that the group *gid* may connect to.  The latter are removed at the end."""
    if inheritance.sockets:
        passed = taken_over(inheritance.sockets)
        with contextlib.ExitStack() as stack:
            for listener in passed.values():
                stack.enter_context(listener)
            yield Listeners.of(passed, shared=True)
        return
    with contextlib.ExitStack() as stack:
        if (left := inheritance.estate.daemon) is not None:
            made: dict[int, socket.socket] = {}
            made[socket.SOCK_SEQPACKET] = left_listener(left, socket.SOCK_SEQPACKET)
            if left.HasField("admin"):
                made[socket.SOCK_STREAM] = socket.socket(fileno=left.admin)
        else:
            made = make(runtime_dir, gid)
            leave_word(
                made[socket.SOCK_SEQPACKET].fileno(), admin_fd=made[socket.SOCK_STREAM].fileno()
            )
        for kind, listener in made.items():
            stack.callback((runtime_dir / NAMES[kind]).unlink, missing_ok=True)
            stack.enter_context(listener)
        yield Listeners.of(made, shared=False)


def make(runtime_dir: Path, gid: int) -> dict[int, socket.socket]:
    """Return new listeners, by type, at their places in *runtime_dir*."""
    paths = {kind: runtime_dir / name for kind, name in NAMES.items()}
    for path in paths.values():
        check_length(path)
    runtime_dir.mkdir(mode=0o755, exist_ok=True)
    with contextlib.ExitStack() as undo:
        made: dict[int, socket.socket] = {}
        for kind, path in paths.items():
            made[int(kind)] = undo.enter_context(listen(path, kind, gid))
        undo.pop_all()
    return made


def listen(path: Path, kind: int, gid: int) -> socket.socket:
    """Return a socket of this *kind* that listens at *path*, where none is yet."""
    remove_stale(path, kind)
    listener = socket.socket(socket.AF_UNIX, kind)
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


def taken_over(passed: dict[int, str]) -> dict[int, socket.socket]:
    """Return the sockets that systemd *passed*, by descriptor and name, as listeners by type, if
    they will do."""
    with contextlib.ExitStack() as undo:
        undo.callback(fdpass.close_all, set(passed))
        found: dict[int, socket.socket] = {}
        for fd, name in passed.items():
            with socket.socket(fileno=os.dup(fd)) as looked_at:
                family, kind = looked_at.family, looked_at.type
            if family != socket.AF_UNIX or kind not in NAMES:
                raise ConfigError(
                    f"{name}: not of AF_UNIX and SOCK_SEQPACKET or SOCK_STREAM:"
                    " set ListenSequentialPacket=, or ListenStream= for the admin socket"
                )
            if kind in found:
                raise ConfigError(f"LISTEN_FDS: two sockets for {NAMES[kind]} were passed, not 1")
            found[kind] = socket.socket(fileno=fd)
        if socket.SOCK_SEQPACKET not in found:
            raise ConfigError("LISTEN_FDS: no socket for hand-offs was passed")
        undo.pop_all()
    return found


def remove_stale(path: Path, kind: int) -> None:
    """Remove the socket that a daemon left at *path*; ConfigError if one still listens there."""
    with socket.socket(socket.AF_UNIX, kind) as probe:
        code = probe.connect_ex(os.fspath(path))
    if code == 0:
        raise ConfigError(f"{path}: another daemon listens there: choose another --runtime-dir")
    if code == errno.ECONNREFUSED:
        path.unlink()
