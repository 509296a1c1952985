"""``lazypagesd lazy-pages``: what takes the place of ``criu lazy-pages``, from its images to the
moment at which a restore may connect."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from lazypagesd.engine.custody import Custody
from lazypagesd.engine.pb import record_pb2
from lazypagesd.errors import LazyPagesError
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.kernel import fdpass
from lazypagesd.service.daemonize import daemonize
from lazypagesd.service.estate import left_listener
from lazypagesd.service.logs import open_log
from lazypagesd.service.options import DropinOptions
from lazypagesd.service.process import (
    collect_from_now_on,
    hold_signals,
    leave_out_tls,
    raise_descriptor_limit,
    stop_interrupting,
)
from lazypagesd.service.ready import report_ready
from lazypagesd.service.succession import Inheritance, keep, leave_word

log = logging.getLogger(__name__)

# Both are criu's.  Further restores wait in the kernel while one is being accepted.
SOCKET_NAME = "lazy-pages.socket"
BACKLOG = 10


def run(options: DropinOptions) -> int:
    """Serve the restores of one checkpoint until all that came are filled; return the exit code.

    Raises LazyPagesError or OSError when it cannot even begin: then nothing listens, and nothing
    was handed over.
    """
    stop_interrupting()
    leave_out_tls()
    inheritance = Inheritance.take(os.environ)
    if (left := inheritance.estate.daemon) is not None:
        return go_on(options, inheritance, left)
    images_fd = os.open(options.images_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(options.work_dir)
    log_fd = open_log(options)
    raise_descriptor_limit()
    with Checkpoint.open(images_fd) as checkpoint:
        log.info("%d processes, %d lazy pages", len(checkpoint.tasks), checkpoint.nr_pages)
        with listening() as listener:
            if options.daemon:
                daemonize(pidfile=options.pidfile)
            leave_word(listener.fileno(), images_fd)
            custody = keep(os.environ, inheritance, wanted=options.keeper)
            # Before anybody can connect who was told so.
            end_with_keeper(custody)
            custody.arm()
            try:
                report_ready(
                    action_scripts=options.action_scripts,
                    images_fd=images_fd,
                    status_fd=options.status_fd,
                    output_fd=log_fd,
                    # Whoever is told may connect, and have gone on when a signal comes: it must
                    # not be lost.  Until then, and by their scripts, we can be ended.
                    beforehand=hold_signals,
                )
            except (LazyPagesError, OSError):
                custody.release()
                raise
            # Here, because it is a lot, and may come while CRIU restores: who connects, or faults,
            # waits in the kernel.
            from lazypagesd.service import criu_restores

            collect_from_now_on()
            return criu_restores.serve(listener, checkpoint, options, custody)


def go_on(options: DropinOptions, inheritance: Inheritance, left: record_pb2.Daemon) -> int:
    """Go on where another daemon has died, with its socket, images and restores.

    We were started in its work directory, and whoever waited for it to be ready does no more.
    """
    open_log(options, anew=False)
    raise_descriptor_limit()
    custody = keep(os.environ, inheritance, wanted=options.keeper)
    if options.daemon and options.pidfile is not None:
        Path(options.pidfile).write_text(str(os.getpid()))
    from lazypagesd.service import criu_restores

    collect_from_now_on()
    listener = left_listener(left, socket.SOCK_STREAM)
    with Checkpoint.open(left.images) as checkpoint, listener as sock:
        sock.setblocking(False)
        connections = inheritance.connections(sock, custody)
        inheritance.close_useless(custody)
        return criu_restores.serve(
            sock,
            checkpoint,
            options,
            custody,
            estate=inheritance.estate,
            connections=connections,
        )


def end_with_keeper(custody: Custody) -> None:
    """Let signals end the keeper as well, until the event loop handles them."""

    def end(number: int, _frame: object) -> None:
        custody.release()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """Listen at lazy-pages.socket, here; the file stays behind, as criu's does."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET_NAME)  # noqa: PTH108 - relative to the work directory, as bind() is
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        if not fdpass.ask_for_sender(listener):
            log.info(
                "the kernel gives no pidfd with a message (Linux 6.5 does):"
                " the end of a process is found by asking"
            )
        listener.bind(SOCKET_NAME)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        yield listener
