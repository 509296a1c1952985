"""The command ``lazypagesctl``: ask a daemon that runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lazypagesd.client.restore import SOCKET_PATH, Refused, Restore

CRIU_SOCKET_NAME = "lazy-pages.socket"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def main(words: Sequence[str] | None = None) -> int:
    """Do what *words*, by default the command line, ask for; return the exit code."""
    options = parser().parse_args(words)
    try:
        serve_criu(options)
    except (OSError, Refused) as error:
        subject = getattr(error, "filename", None)
        text = getattr(error, "strerror", None) or str(error)
        sys.stderr.write(f"lazypagesctl: {f'{subject}: ' if subject else ''}{text}\n")
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    top = argparse.ArgumentParser(
        prog="lazypagesctl", description="Ask a lazypagesd that serves.", allow_abbrev=False
    )
    serve = top.add_subparsers(required=True).add_parser("serve", help="have something served")
    criu = serve.add_subparsers(required=True).add_parser(
        "criu",
        allow_abbrev=False,
        help="one criu restore --lazy-pages",
        description="Have one `criu restore --lazy-pages` served: it may begin when this returns.",
    )
    criu.add_argument("-D", "--images-dir", type=Path, default=Path(), help="the images")
    criu.add_argument("-W", "--work-dir", type=Path, help="criu's work directory: the images'")
    criu.add_argument("--wait", action="store_true", help="return when every page is in")
    criu.add_argument("--socket", type=Path, default=SOCKET_PATH, help=f"default: {SOCKET_PATH}")
    return top


def serve_criu(options: argparse.Namespace) -> None:
    """Hand the images and a socket for CRIU over; the daemon opens no path that we name."""
    with (
        directory(options.images_dir) as images_fd,
        directory(options.work_dir or options.images_dir) as work_fd,
        Restore.open("criu", options.socket, images_fd=images_fd) as restore,
    ):
        with listening(work_fd) as listener:
            restore.serve_criu(listener.fileno())
        print(restore.name, flush=True)
        if options.wait:
            restore.release()


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
    """Listen at lazy-pages.socket in a directory, however long its path; the file stays."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(CRIU_SOCKET_NAME, dir_fd=work_fd)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"/proc/self/fd/{work_fd}/{CRIU_SOCKET_NAME}")
        listener.listen(1)
        yield listener
