"""One restore of ``lazypagesd serve``: a client's requests, and their answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from dataclasses import dataclass, field

from lazypagesd.engine.restore import Restore
from lazypagesd.errors import HandoffError, LazyPagesError
from lazypagesd.handoff import native
from lazypagesd.handoff.criu import receive_message
from lazypagesd.handoff.native import Step
from lazypagesd.kernel import fdpass
from lazypagesd.proto import handoff_pb2 as pb
from lazypagesd.service.dropin import DropinHandoff, sources_of
from lazypagesd.service.options import ServeLimits

# How long a client may take to say what it wants.
OPEN_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Admission:
    """Who may begin a restore: *uids*, as many at a time as *limits* say."""

    limits: ServeLimits
    uids: frozenset[int]
    nr_restores: int = 0
    connections: Counter[int] = field(default_factory=Counter)

    def reasons_against(self, uid: int) -> list[str]:
        """Return every reason why user *uid* may not begin another one."""
        reasons = []
        if uid not in self.uids:
            reasons.append(f"user {uid}: only root and the daemon's own user may hand over")
        if self.nr_restores >= self.limits.restores:
            reasons.append(
                f"{self.nr_restores} restores are being served: wait, or raise restores"
            )
        if self.connections[uid] >= self.limits.connections_per_user:
            reasons.append(
                f"user {uid} has {self.connections[uid]} connections:"
                " close some, or raise connections_per_user"
            )
        return reasons


class NativeHandoff:
    """One client's connection, from open to its end."""

    def __init__(self, connection: socket.socket, restore: Restore, admission: Admission) -> None:
        """Take ownership of *connection*."""
        self._connection = connection
        self._restore = restore
        self._admission = admission
        self._protocol = native.Protocol(
            native.Limits(admission.limits.sessions, admission.limits.regions)
        )
        self._listener: native.Listener | None = None  # until CRIU has connected
        self._criu_came = asyncio.Event()  # or need not be waited for: we are to stop
        self._aborted = False
        self._stopped = False
        self._criu: DropinHandoff | None = None
        self._uid = fdpass.peer_uid(connection)
        self._refused = admission.reasons_against(self._uid)
        admission.connections[self._uid] += 1
        admission.nr_restores += 1

    async def receive(self) -> None:
        """Carry out requests until the restore is released."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                message = await self._next()
        except TimeoutError:
            raise HandoffError(f"hand-off: no request within {OPEN_TIMEOUT_S:g} s") from None
        while await self._carry_out(message):
            if self._aborted:
                raise HandoffError("hand-off: the client gave the restore up")
            if self._listener is not None:
                await self._receive_criu(self._listener)
            if self._restore.released:
                return
            message = await self._next()
        raise HandoffError("hand-off: the client closed the connection before it had finished")

    async def conclude(self) -> None:
        """Carry out requests until the client leaves, then wait for the end of the restore."""
        while await self._carry_out(await self._next()):
            pass
        await (self._criu.conclude() if self._criu else self._restore.wait_ended())

    def stop(self) -> None:
        """Make the end of what was sent the end of file, here and where CRIU connects."""
        self._connection.shutdown(socket.SHUT_RD)
        self._stopped = True
        self._criu_came.set()
        if self._criu is not None:
            self._criu.stop()

    def hang_up(self) -> None:
        """Close the connection, and CRIU's."""
        self._connection.close()
        self._admission.connections[self._uid] -= 1
        if self._criu is not None:
            self._criu.hang_up()

    def close(self) -> None:
        """Close the files and images that came with it."""
        self._protocol.close()
        self._admission.nr_restores -= 1

    async def _next(self) -> fdpass.Message:
        return await receive_message(self._connection, native.PACKET_MAX + 1)

    # False where there is no request: the client has left.
    async def _carry_out(self, message: fdpass.Message) -> bool:
        with contextlib.closing(message):
            if not message.data:
                return False
            try:
                if self._refused:
                    raise native.Refused(self._refused)
                # Not in this thread, because a client's file may take its time to be looked at.
                step = await asyncio.to_thread(self._protocol.feed, message)
                answer = await self._do(step)
            except (LazyPagesError, OSError) as error:
                reasons = error.reasons if isinstance(error, native.Refused) else [str(error)]
                self._send(pb.Answer(refused=native.shorten(reasons)))
                raise
            answer.accepted = True
            self._send(answer)
        return True

    async def _do(self, step: native.Outcome) -> pb.Answer:
        restore = self._restore
        match step:
            case native.Opened(name):
                restore.name += f" ({name})" if name else ""
                return pb.Answer(restore=restore.name)
            case native.Session():
                name = f"{restore.name}/{len(restore.sessions)}"
                restore.add(name, step.fd, step.page_map, step.sources, pidfd=step.pidfd)
            case native.Listener():
                step.socket.setblocking(False)
                fdpass.ask_for_sender(step.socket)
                self._listener = step
            case Step.FINISHED:
                restore.release()
            case Step.ABORT:
                self._aborted = True
            case Step.PROGRESS:
                return pb.Answer(state=state_of(restore))
            case Step.RELEASE:
                await restore.wait_ended()
                return pb.Answer(state=state_of(restore))
        return pb.Answer()

    async def _receive_criu(self, listener: native.Listener) -> None:
        with listener.socket as sock:
            connection = await self._accept(sock)
            self._listener = None
        sources = await asyncio.to_thread(sources_of, listener.checkpoint)
        self._criu = DropinHandoff(connection, listener.checkpoint, sources, self._restore)
        if self._stopped:
            self._criu.stop()
        await self._criu.receive()

    async def _accept(self, listener: socket.socket) -> socket.socket:
        wait_s = self._admission.limits.criu_wait_s
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, self._criu_came.set)
        try:
            async with asyncio.timeout(wait_s):
                await self._criu_came.wait()
            connection, _ = listener.accept()
        except (TimeoutError, BlockingIOError):
            raise HandoffError(f"hand-off: no criu restore came within {wait_s} s") from None
        finally:
            loop.remove_reader(listener)
        connection.setblocking(False)
        return connection

    def _send(self, answer: pb.Answer) -> None:
        # Who does not read the answers waits for none; who has left is met at the next request.
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._connection.send(answer.SerializeToString())


def state_of(restore: Restore) -> pb.State:
    """Return how far *restore* is."""
    live = restore.live
    return pb.State(
        ended=restore.released and not live,
        nr_sessions=len(restore.sessions),
        nr_live=len(live),
        nr_pages=sum(session.counters.nr_pages for session in restore.sessions),
        nr_missing=restore.nr_missing,
    )
