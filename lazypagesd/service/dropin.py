"""``lazypagesd lazy-pages``: what takes the place of ``criu lazy-pages``, from its images to its
exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from lazypagesd.engine.custody import Custody
from lazypagesd.engine.pace import Pace
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.restore import Restore
from lazypagesd.errors import LazyPagesError
from lazypagesd.handoff import criu
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.kernel import fdpass
from lazypagesd.service.criu_handoff import CriuHandoff, sources_of
from lazypagesd.service.daemonize import daemonize
from lazypagesd.service.estate import left_connection, left_listener
from lazypagesd.service.logs import open_log
from lazypagesd.service.options import DropinOptions
from lazypagesd.service.ready import report_ready
from lazypagesd.service.restores import Restores
from lazypagesd.service.succession import Inheritance, keep, leave_word

log = logging.getLogger(__name__)

# criu's; further restores wait in the kernel while one is being accepted.
BACKLOG = 10


def run(options: DropinOptions) -> int:
    """Serve the restores of one checkpoint until all that came are filled; return the exit code.

    Raises LazyPagesError or OSError when it cannot even begin: then nothing listens, and nothing
    was handed over.
    """
    stop_interrupting()
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
                )
            except (LazyPagesError, OSError):
                custody.release()
                raise
            restores = restores_of(checkpoint, options.pace, custody)
            code = asyncio.run(restores.serve(listener))
    restores.report(to_stdout=not options.daemon)
    return code


def go_on(options: DropinOptions, inheritance: Inheritance, left: record_pb2.Daemon) -> int:
    """Go on where another daemon has died, with its socket, images and restores.

    We were started in its work directory, and whoever waited for it to be ready does no more.
    """
    open_log(options, anew=False)
    raise_descriptor_limit()
    custody = keep(os.environ, inheritance, wanted=options.keeper)
    if options.daemon and options.pidfile is not None:
        Path(options.pidfile).write_text(str(os.getpid()))
    listener = left_listener(left, socket.SOCK_STREAM)
    with Checkpoint.open(left.images) as checkpoint, listener as sock:
        sock.setblocking(False)
        connections = inheritance.connections(sock, custody)
        inheritance.close_useless(custody)
        restores = restores_of(checkpoint, options.pace, custody)
        serving = restores.serve(
            sock,
            estate=inheritance.estate,
            connections=connections,
        )
        code = asyncio.run(serving)
    restores.report(to_stdout=not options.daemon)
    return code


def restores_of(checkpoint: Checkpoint, pace: Pace, custody: Custody) -> Restores:
    """Return the restores, by CRIU, of *checkpoint*, which stays open as long, at *pace*."""
    sources = sources_of(checkpoint)

    def hand_off(connection: socket.socket, restores: Restores) -> CriuHandoff:
        record = record_pb2.Restore(
            owner=fdpass.peer_uid(connection),
            pace=pace.rate,
            criu_connection=connection.fileno(),
        )
        return CriuHandoff(connection, checkpoint, sources, restores.begin(record))

    def resume(restore: Restore, restores: Restores) -> CriuHandoff:
        assert restore.record is not None, "it was left by that"
        left = restore.record.message
        connection = left_connection(left, "criu_connection", socket.SOCK_STREAM)
        return CriuHandoff(connection, checkpoint, sources, restore)

    return Restores(hand_off, resume=resume, custody=custody)


def stop_interrupting() -> None:
    """Let SIGINT end us as SIGTERM does, until there is something to lose: without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_with_keeper(custody: Custody) -> None:
    """Let signals end the keeper as well, until the event loop handles them."""

    def end(number: int, _frame: object) -> None:
        custody.release()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def raise_descriptor_limit() -> None:
    """Take what the hard limit allows: each process that forks brings two more descriptors."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """Listen at lazy-pages.socket, here; the file stays behind, as criu's does."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(criu.SOCKET_NAME)  # noqa: PTH108 - relative to the work directory, as bind() is
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        if not fdpass.ask_for_sender(listener):
            log.info(
                "the kernel gives no pidfd with a message (Linux 6.5 does):"
                " the end of a process is found by asking"
            )
        listener.bind(criu.SOCKET_NAME)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        yield listener
