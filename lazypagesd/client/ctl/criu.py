"""Have a restore by CRIU served, and run it."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from lazypagesd.client.ctl.daemon import reaching
from lazypagesd.client.ctl.running import HeldSignals
from lazypagesd.client.ctl.waiting import wait_for
from lazypagesd.client.restore import Restore

SOCKET_NAME = "lazy-pages.socket"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def serve_criu(options: argparse.Namespace) -> int:
    """Hand images over, and the socket that CRIU looks for; return when it may be started."""
    with directory(work_dir(options)) as work_fd, opened(options) as restore:
        hand_over(restore, work_fd)
        if options.wait:
            wait_for(restore, options.socket)
    return 0


def restore_criu(options: argparse.Namespace) -> int:
    """Do that, and run ``criu restore``; return its exit code."""
    with directory(work_dir(options)) as work_fd, opened(options) as restore:
        code = run_criu(options, restore, work_fd)
        if code == 0 and options.wait:
            wait_for(restore, options.socket)
    return code


def run_criu(options: argparse.Namespace, restore: Restore, work_fd: int) -> int:
    """Hand *restore* over and run CRIU; where it fails, so does the restore, at once."""
    dirs = ["-D", os.fspath(options.images_dir), "-W", os.fspath(work_dir(options))]
    code = 1
    with HeldSignals() as signals:
        inode = hand_over(restore, work_fd)
        try:
            code = signals.run(
                [options.criu, "restore", "--lazy-pages", *dirs, *options.criu_options]
            )
        finally:
            if code != 0:
                give_up(work_fd, inode)
    return code


def work_dir(options: argparse.Namespace) -> Path:
    """Return the work directory, which is the images' unless another one was given."""
    path: Path = options.work_dir or options.images_dir
    return path


@contextlib.contextmanager
def opened(options: argparse.Namespace) -> Iterator[Restore]:
    """Begin a restore of the images; the daemon opens no path that we name."""
    with directory(options.images_dir) as images_fd:
        with reaching(options.socket):
            restore = Restore.open("criu", options.socket, images_fd=images_fd, pace=options.pace)
        with restore:
            yield restore


def hand_over(restore: Restore, work_fd: int) -> int:
    """Hand over a socket in the work directory, and say so; return the inode of its file."""
    with listening(work_fd) as listener:
        inode = os.stat(SOCKET_NAME, dir_fd=work_fd).st_ino
        # Our copy is closed when it has been taken over: CRIU must not find a socket that listens
        # when the daemon is gone.
        restore.serve_criu(listener.fileno())
    print(restore.name, flush=True)
    return inode


def give_up(work_fd: int, inode: int) -> None:
    """Hang up in the place of a CRIU that will not come, so that the daemon does not wait for it.

    Does nothing where one has come, or where the socket is another restore's by now.
    """
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        if os.stat(SOCKET_NAME, dir_fd=work_fd).st_ino == inode:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(socket_path(work_fd))


@contextlib.contextmanager
def directory(path: Path) -> Iterator[int]:
    """Open a directory."""
    fd = os.open(path, DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def listening(work_fd: int) -> Iterator[socket.socket]:
    """Listen at lazy-pages.socket in a directory; the file stays."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET_NAME, dir_fd=work_fd)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(socket_path(work_fd))
        except OSError as error:
            real = Path(f"/proc/self/fd/{work_fd}").readlink()
            raise OSError(error.errno, error.strerror, f"{real}/{SOCKET_NAME}") from error
        listener.listen(1)
        yield listener


def socket_path(work_fd: int) -> str:
    """Return a path of the socket that is short, however long the directory's is."""
    return f"/proc/self/fd/{work_fd}/{SOCKET_NAME}"
