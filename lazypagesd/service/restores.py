"""The restores that a daemon serves: many at a time, each a connection, one engine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import NoReturn, Protocol

from lazypagesd.engine.custody import Custody
from lazypagesd.engine.engine import Engine
from lazypagesd.engine.pace import EAGER, Pace
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.restore import Restore
from lazypagesd.engine.restore_record import RestoreRecord, fds_of
from lazypagesd.errors import LazyPagesError
from lazypagesd.keeper import Keeper
from lazypagesd.service import status
from lazypagesd.service.acceptor import RETRY_S, Acceptor
from lazypagesd.service.estate import Estate, LeftRestore
from lazypagesd.service.journal import MessageId
from lazypagesd.service.restore_log import (
    log_statistics,
    log_unexpected,
    name_of,
    names_of,
    write_stdout,
)
from lazypagesd.service.session_log import SessionLog, log_lost

log = logging.getLogger(__name__)

# How long processes of a restore that failed may take to be killed by their restore tool.
FAILED_GRACE_S = 10.0


class Handoff(Protocol):
    """How one restore arrives on its connection, which it owns until hang_up()."""

    @property
    def restore(self) -> Restore | None:
        """What it has begun, by Restores.begin(); a visitor begins none."""

    async def receive(self) -> None:
        """Take over all that comes; return when the restore, if there is one, has been
        released."""

    async def conclude(self) -> None:
        """Wait for the end of the restore, and do what its protocol has in store until then."""

    def stop(self) -> None:
        """Take in what has been sent already, and no more: the daemon is to end."""

    async def outlast(self) -> None:
        """Wait for the end of processes that have come and are served by no session."""

    def hang_up(self) -> None:
        """Close the connection, at which a restore that is not released has failed."""

    def close(self) -> None:
        """Close what the restore reads from, which has ended."""


class Restores:
    """Accepts restores until one has come and none is left; or, if it *stays*, until a signal."""

    def __init__(
        self,
        hand_off: Callable[[socket.socket, Restores], Handoff],
        *,
        resume: Callable[[Restore, Restores], Handoff],
        custody: Custody,
        stays: bool = False,
    ) -> None:
        """Prepare to serve what *hand_off* makes of each connection, which it takes over.

        *resume* returns what goes on with the hand-off of a restore that another daemon has left,
        by its record; *custody* is where everything outlives this one.
        """
        self._hand_off = hand_off
        self._resume = resume
        self._stays = stays
        self.custody = custody
        self.engine = Engine(custody=custody)
        # Who is told of a restore that is served no more.
        self.on_ended: Callable[[Restore], None] = lambda restore: None
        # By their numbers: those that are served, and if nobody stays to ask, those that were.
        self._restores: dict[int, Restore] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        # Those whose connection is open, and of them those whose hand-off is not over.
        self._connected: set[Handoff] = set()
        self._handing_over: set[Handoff] = set()
        self._handed_over = asyncio.Event()
        self._none_left = asyncio.Event()
        self._failed = False
        self._stopping = False

    async def serve(
        self,
        listener: socket.socket,
        *,
        shared: bool = False,
        ready: Callable[[], None] = lambda: None,
        estate: Estate | None = None,
        connections: Iterable[socket.socket] = (),
        beside: Callable[[asyncio.TaskGroup], Callable[[], None]] = lambda group: lambda: None,
    ) -> int:
        """Serve every restore that connects, and those of an *estate* and those *connections*
        that were accepted before; return the exit code when the last has ended.

        That one has failed is an exit code of the drop-in's, which is there for them alone.
        Takes ownership of *listener*, which others accept at after us if it is *shared*.
        Calls *ready* when a signal would find what to do, and *beside* to begin what else is done
        in tasks of the same group; what that returns ends it.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_unexpected)
        self.engine.start(estate.recorders if estate else ())
        async with (
            asyncio.TaskGroup() as group,
            status.telling(self.engine, self._restores.values()),
        ):
            accept = functools.partial(self._accept, group)
            acceptor = Acceptor(listener, accept, shared=shared)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._terminate, number, acceptor, group)
            loop.add_signal_handler(signal.SIGUSR2, self._leave)
            self._watch_keeper()
            for left in (estate or Estate()).restores.values():
                self._take_over(group, left)
            for connection in connections:
                accept(connection)
            acceptor.start()
            self.custody.arm()
            ready()
            end_beside = beside(group)
            await self._none_left.wait()
            self.custody.release()
            acceptor.close()
            end_beside()
        await self.engine.stop()
        self.custody.release()
        return 1 if self._failed and not self._stays else 0

    def begin(self, record: record_pb2.Restore) -> Restore:
        """Return a new restore, of which *record* says all but the number.

        People are told its name behind the number.  What the record names is in custody when this
        returns; raises SessionError if it cannot be.
        """
        record.number = next(self._numbers)
        record.began_usec = time.time_ns() // 1000
        record.name = f"restore {record.number}" + (f" ({record.name})" if record.name else "")
        self.custody.keep(fds_of(record))
        try:
            kept = RestoreRecord.create(record, self.custody)
        except (LazyPagesError, OSError):
            self.custody.drop(fds_of(record))
            raise
        restore = self._add(record, kept)
        log.info(
            "%s: begun by user %d",
            restore.name,
            restore.owner,
            extra=fields(restore, MessageId.BEGUN),
        )
        return restore

    def _add(self, message: record_pb2.Restore, record: RestoreRecord) -> Restore:
        restore = Restore(
            message.name,
            self.engine,
            SessionLog(message.number),
            Pace(message.pace),
            number=message.number,
            owner=message.owner,
            began_usec=message.began_usec,
            paused=message.paused,
        )
        restore.record = record
        self._restores[restore.number] = restore
        return restore

    def _take_over(self, group: asyncio.TaskGroup, left: LeftRestore) -> None:
        restore = self._add(left.record, RestoreRecord(left.file, left.record, self.custody))
        self._numbers = itertools.count(max(self._restores) + 1)
        for session in left.sessions:
            restore.take_over(session.state, session.record)
        if left.record.released:
            restore.release()
        log.warning(
            "%s: taken over from a daemon that has ended: %d processes, %d pages missing",
            restore.name,
            len(left.sessions),
            restore.nr_missing,
            extra=fields(restore, MessageId.TAKEN_OVER),
        )
        self._start(group, self._resume(restore, self))

    def find(self, number: int) -> Restore | None:
        """Return the restore of that number, if it is being served."""
        return self._restores.get(number)

    @property
    def served(self) -> list[Restore]:
        """Those that are being served."""
        return list(self._restores.values())

    @property
    def nr_restores(self) -> int:
        """How many are being served."""
        return len(self._restores)

    def _accept(self, group: asyncio.TaskGroup, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            self._start(group, self._hand_off(connection, self))
        except OSError as error:
            # No descriptor is left, say: as if it could not even be accepted.
            log.error(
                "a further restore waits, for it cannot be begun: %s;"
                " it is tried again every %g seconds",
                error.strerror,
                RETRY_S,
            )
            self._add_task(group.create_task(self._accept_later(group, connection)))

    async def _accept_later(self, group: asyncio.TaskGroup, connection: socket.socket) -> None:
        await asyncio.sleep(RETRY_S)
        self._accept(group, connection)

    def _start(self, group: asyncio.TaskGroup, handoff: Handoff) -> None:
        self.custody.arm()
        self._connected.add(handoff)
        self._handing_over.add(handoff)
        if self._stopping:
            handoff.stop()
        self._add_task(group.create_task(self._serve_and_close(handoff)))

    def _add_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        self._check_none_left()

    def _check_none_left(self) -> None:
        if not self._tasks and (self._stopping or not self._stays):
            self._none_left.set()

    async def _serve_and_close(self, handoff: Handoff) -> None:
        with contextlib.closing(handoff):
            await self._serve_one(handoff)
            self._release_if_last()
            if handoff.restore is not None:
                # Before its files are closed, whose numbers may soon be others'.
                handoff.restore.let_go()
        if handoff.restore is not None:
            restore = handoff.restore
            log.info("%s: ended", restore.name, extra=fields(restore, MessageId.ENDED))
            if self._stays:
                del self._restores[restore.number]
                self.on_ended(handoff.restore)
                log_statistics(handoff.restore)

    def _release_if_last(self) -> None:
        # Whoever came next would find nothing left, and wait for a restore to come.
        if len(self._tasks) == 1 and (self._stopping or not self._stays):
            self.custody.release()

    async def _serve_one(self, handoff: Handoff) -> None:
        try:
            try:
                await self._hand_over(handoff)
                await handoff.conclude()
            finally:
                self._connected.remove(handoff)
                handoff.hang_up()
        except (LazyPagesError, OSError) as error:
            await self._end_early(handoff, error)
        except Exception:
            # Here, where it fails this restore alone: the others' processes would read zeros.
            log.exception("%s: unexpected error, please report it", name_of(handoff.restore))
            await self._end_failed(handoff)

    async def _hand_over(self, handoff: Handoff) -> None:
        try:
            await handoff.receive()
            if (restore := handoff.restore) is not None:
                log.info(
                    "%s: handed over: %d processes, %d pages missing",
                    restore.name,
                    len(restore.live),
                    restore.nr_missing,
                    extra=fields(restore, MessageId.HANDED_OVER),
                )
        finally:
            self._handing_over.remove(handoff)
            if not self._handing_over:
                self._handed_over.set()

    async def _end_early(self, handoff: Handoff, error: Exception) -> None:
        restore = handoff.restore
        if self._stopping and not (restore and restore.released):
            await self._end_unfinished(handoff)
        else:
            extra = fields(restore, MessageId.FAILED) if restore else {}
            log.error("%s: %s", name_of(restore), error, extra=extra)
            await self._end_failed(handoff)

    async def _end_unfinished(self, handoff: Handoff) -> None:
        if handoff.restore is not None:
            log.warning(
                "%s: ended before it was complete, and so it fails",
                handoff.restore.name,
                extra=fields(handoff.restore, MessageId.FAILED),
            )
            await self._outlast(handoff, handoff.restore)

    async def _end_failed(self, handoff: Handoff) -> None:
        self._failed = True
        restore = handoff.restore
        if restore is None:
            return
        if restore.released:
            # Its processes have gone on, and nobody is going to kill them.
            await restore.wait_ended()
        else:
            await self._outlast(handoff, restore)

    async def _outlast(self, handoff: Handoff, restore: Restore) -> None:
        # The connection is closed, which makes the restore tool kill what it has made; until then
        # nobody may see a zero, so their faults are answered still.
        restore.fail()
        try:
            async with asyncio.timeout(FAILED_GRACE_S):
                await restore.wait_ended()
                await handoff.outlast()
        except TimeoutError:
            log.error(
                "%s: its processes live on without a restore, giving them up",
                restore.name,
                extra=fields(restore, MessageId.FAILED),
            )
            restore.abandon()
            await restore.wait_ended()

    # ---- the keeper ----

    def _watch_keeper(self) -> None:
        if (keeper := self.custody.keeper) is not None:
            asyncio.get_running_loop().add_reader(keeper.pidfd, self._replace_keeper, keeper)

    def _replace_keeper(self, keeper: Keeper) -> None:
        asyncio.get_running_loop().remove_reader(keeper.pidfd)
        log.error("the keeper has died, starting another")
        keeper.start_again()
        self._watch_keeper()

    # ---- signals ----

    def _terminate(self, number: int, acceptor: Acceptor, group: asyncio.TaskGroup) -> None:
        if self._stopping:
            self._die(number)
        self._stopping = True
        # Not close(), here either: the final word may be there, unread, and its sender gone on.
        # Whoever has yet to send it cannot any more.
        for handoff in self._connected:
            handoff.stop()
        acceptor.close()
        # Only now it is known whether somebody was in the backlog.
        if not (self._tasks or self._stays or self._none_left.is_set()):
            self._die(number)
        self._check_none_left()
        group.create_task(self._finish(number))

    async def _finish(self, number: int) -> None:
        while self._handing_over:
            self._handed_over.clear()
            await self._handed_over.wait()
        released = [restore for restore in self._restores.values() if restore.released]
        served = [restore for restore in released if restore.live]
        if not served:
            # Of those that were served to their end the tasks are about to hear, and end.
            if released or self._stays:
                return
            self._die(number)
        log.warning(
            "%s: filling the %d pages that are missing first; a second signal gives them up: %s",
            signal.Signals(number).name,
            sum(restore.nr_missing for restore in served),
            names_of([session for restore in served for session in restore.live]),
        )
        # Whoever is lazy, or paused, would never finish.
        for restore in served:
            restore.resume()
            restore.set_pace(EAGER)

    def _leave(self) -> None:
        if self.custody.keeper is None:
            log.warning("SIGUSR2: without a keeper all would be lost, ignoring")
            return
        log.warning("SIGUSR2: leaving everything to the next daemon")
        # Nothing is tidied up, or that would be the end of it.
        os._exit(0)

    def _die(self, number: int) -> NoReturn:
        for restore in self._restores.values():
            for session in restore.live if restore.released else ():
                log_lost(session, session.state.nr_missing, restore=restore.number)
        self.custody.release()
        # As the signal would have, had it not been caught: that is what the exit status then says.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        raise SystemExit(128 + number)

    # ---- at the end ----

    def report(self, *, to_stdout: bool) -> None:
        """Log what was done, as tables, and print it if *to_stdout*."""
        lines = [line for restore in self._restores.values() for line in log_statistics(restore)]
        if to_stdout:
            write_stdout("".join(f"{line}\n" for line in lines))


def fields(restore: Restore, message_id: MessageId) -> dict[str, object]:
    """Return what the journal has beside a line about *restore*."""
    return {"RESTORE": restore.number, "MESSAGE_ID": message_id}
