"""The restores that the drop-in serves: many at a time, one checkpoint, one engine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import itertools
import logging
import os
import signal
import socket
from typing import NoReturn

from lazypagesd.engine.engine import RETRY_INTERVAL_S, Engine
from lazypagesd.engine.pace import EAGER, Pace
from lazypagesd.engine.restore import Restore
from lazypagesd.engine.session import End, Session, Trouble
from lazypagesd.engine.statistics import report
from lazypagesd.errors import LazyPagesError
from lazypagesd.handoff import criu
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.service.acceptor import Acceptor
from lazypagesd.service.logs import STDOUT_FD
from lazypagesd.sources.file import FileSource

log = logging.getLogger(__name__)

# How long processes of a restore that failed may take to be killed by their restore tool.
FAILED_GRACE_S = 10.0


class Restores:
    """Accepts restores until one has come and none is left; also their observer, who logs."""

    def __init__(self, checkpoint: Checkpoint, pace: Pace = EAGER) -> None:
        """Prepare to serve *checkpoint*, which stays open as long, at *pace*."""
        self._checkpoint = checkpoint
        self._pace = pace
        self._sources = {
            file.fd: FileSource.of(file.fd, file.name)
            for page_map in checkpoint.page_maps.values()
            for file in page_map.sources
        }
        self._engine = Engine()
        self._restores: list[Restore] = []
        self._tasks: dict[asyncio.Task[None], Restore] = {}
        self._numbers = itertools.count(1)
        # Those whose hand-off is not over.
        self._handing_over: dict[Restore, socket.socket] = {}
        self._handed_over = asyncio.Event()
        self._none_left = asyncio.Event()
        self._failed = False
        self._stopping = False
        self._told: set[tuple[str, str | None, int | None]] = set()

    async def serve(self, listener: socket.socket) -> int:
        """Serve every restore that connects; return the exit code when the last has ended.

        Takes ownership of *listener*.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_unexpected)
        self._engine.start()
        async with asyncio.TaskGroup() as group:
            acceptor = Acceptor(listener, functools.partial(self._begin, group))
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._terminate, number, acceptor, group)
            acceptor.start()
            await self._none_left.wait()
            acceptor.close()
        await self._engine.stop()
        return 1 if self._failed else 0

    def _begin(self, group: asyncio.TaskGroup, connection: socket.socket) -> None:
        connection.setblocking(False)
        restore = Restore(f"restore {next(self._numbers)}", self._engine, self, self._pace)
        self._restores.append(restore)
        self._handing_over[restore] = connection
        if self._stopping:
            connection.shutdown(socket.SHUT_RD)
        task = group.create_task(self._serve_one(connection, restore))
        self._tasks[task] = restore
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not self._tasks:
            self._none_left.set()

    async def _serve_one(self, connection: socket.socket, restore: Restore) -> None:
        log.info("%s: connected", restore.name)
        try:
            with connection:
                protocol = await self._hand_over(connection, restore)
                await restore.wait_ended()
                # Now, because the processes live on whatever it says, and want their pages.
                criu.check_end(connection, protocol)
        except (LazyPagesError, OSError) as error:
            if self._stopping and not restore.released:
                await self._end_unfinished(restore)
            else:
                log.error("%s: %s", restore.name, error)
                await self._end_failed(restore)
        except Exception:
            # Here, where it fails this restore alone: the others' processes would read zeros.
            log.exception("%s: unexpected error, please report it", restore.name)
            await self._end_failed(restore)
        log.info("%s: ended", restore.name)

    async def _hand_over(self, connection: socket.socket, restore: Restore) -> criu.Protocol:
        try:
            return await criu.receive(connection, self._checkpoint, self._sources, restore)
        finally:
            del self._handing_over[restore]
            if not self._handing_over:
                self._handed_over.set()

    async def _end_unfinished(self, restore: Restore) -> None:
        log.warning("%s: ended before it was complete, and so it fails", restore.name)
        await self._outlast(restore)

    async def _end_failed(self, restore: Restore) -> None:
        self._failed = True
        if restore.released:
            # Its processes have gone on, and nobody is going to kill them.
            await restore.wait_ended()
        else:
            await self._outlast(restore)

    async def _outlast(self, restore: Restore) -> None:
        # The connection is closed, which makes the restore tool kill what it has made; until then
        # nobody may see a zero, so their faults are answered still.
        restore.fail()
        try:
            async with asyncio.timeout(FAILED_GRACE_S):
                await restore.wait_ended()
        except TimeoutError:
            log.error("%s: its processes live on without a restore, giving them up", restore.name)
            restore.abandon()
            await restore.wait_ended()

    # ---- signals ----

    def _terminate(self, number: int, acceptor: Acceptor, group: asyncio.TaskGroup) -> None:
        if self._stopping or not self._tasks:
            self._die(number)
        self._stopping = True
        # Not close(), here either: the final word may be there, unread, and its sender gone on.
        # Whoever has yet to send it cannot any more.
        for connection in self._handing_over.values():
            connection.shutdown(socket.SHUT_RD)
        acceptor.close()
        group.create_task(self._finish(number))

    async def _finish(self, number: int) -> None:
        while self._handing_over:
            self._handed_over.clear()
            await self._handed_over.wait()
        served = [restore for restore in self._tasks.values() if restore.released and restore.live]
        if not served:
            self._die(number)
        log.warning(
            "%s: filling the %d pages that are missing first; a second signal gives them up",
            signal.Signals(number).name,
            sum(restore.nr_missing for restore in served),
        )
        # Whoever is lazy would never finish.
        for restore in served:
            restore.set_pace(EAGER)

    def _die(self, number: int) -> NoReturn:
        for restore in self._tasks.values():
            for session in restore.live if restore.released else ():
                self._log_lost(session, session.state.nr_missing)
        # As the signal would have, had it not been caught: that is what the exit status then says.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        raise SystemExit(128 + number)

    def _log_lost(self, session: Session, nr_missing: int) -> None:
        if nr_missing:
            log.error(
                "process %s: %d pages are lost: it reads zeros there from now on",
                session.name,
                nr_missing,
            )

    # ---- what happens to sessions ----

    def session_ended(self, session: Session) -> None:
        """Log how, and what is lost."""
        log.info("process %s: %s", session.name, session.end)
        if session.end is End.ABANDONED:
            self._log_lost(session, session.counters.nr_missing)

    def session_in_trouble(self, session: Session, trouble: Trouble) -> None:
        """Log which page it is, where its bytes should be, and who waits."""
        if not trouble.waiting:
            # The drain meets every page of a broken file; one of them says it all.
            key = session.name, trouble.source, trouble.error.errno
            if key in self._told:
                return
            self._told.add(key)
        where = f"{trouble.source} at offset {trouble.offset}" if trouble.source else "the kernel"
        log.error(
            "process %s: page %#x %s: %s: %s; it is tried again every %d seconds",
            session.name,
            trouble.addr,
            "is waited for and cannot be filled" if trouble.waiting else "cannot be filled ahead",
            where,
            reason(trouble.error),
            RETRY_INTERVAL_S,
        )

    def fork_delayed(self, session: Session, error: OSError) -> None:
        """Log that a parent and its child wait."""
        log.error(
            "process %s: has forked, and waits with its child: %s", session.name, error.strerror
        )

    # ---- at the end ----

    def report(self, *, to_stdout: bool) -> None:
        """Log what was done, as tables, and print it if *to_stdout*."""
        lines = []
        for restore in self._restores:
            rows = [(session.name, session.counters) for session in restore.sessions]
            lines += [f"{restore.name}: statistics", *report(rows)] if rows else []
        for line in lines:
            log.info("%s", line)
        if to_stdout:
            write_stdout("".join(f"{line}\n" for line in lines))


def write_stdout(text: str) -> None:
    """Write *text*, if anybody still reads it: that they do not is no failure of ours."""
    data = text.encode()
    with contextlib.suppress(OSError):
        # Past sys.stdout, which would try once more when Python ends.
        while data:
            data = data[os.write(STDOUT_FD, data) :]


def reason(error: OSError) -> str:
    """Say what is wrong with a source, and the remedy where there is one."""
    if error.errno == errno.ENODATA:
        return "the file ends before it: put the whole file back in place"
    return error.strerror or str(error)


def log_unexpected(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log what went wrong in a callback, for the daemon's own log and not for asyncio's."""
    error = context.get("exception")
    log.error(
        "%s",
        context["message"],
        exc_info=error if isinstance(error, BaseException) else None,
    )
