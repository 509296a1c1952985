"""One restore of ``lazypagesd serve``: a client's requests, and their answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterable

from lazypagesd.engine.engine import PROBE_INTERVAL_S
from lazypagesd.engine.pace import Pace
from lazypagesd.engine.restore import Restore
from lazypagesd.engine.state import memory_of
from lazypagesd.errors import HandoffError, LazyPagesError
from lazypagesd.handoff import native
from lazypagesd.handoff.channel import agree
from lazypagesd.handoff.criu import wait_for_message
from lazypagesd.handoff.native import Step
from lazypagesd.images.pagemap import PageMap
from lazypagesd.kernel import fdpass, uffd
from lazypagesd.proto import handoff_pb2 as pb
from lazypagesd.service.admission import Admission, Peer
from lazypagesd.service.dropin import DropinHandoff, sources_of
from lazypagesd.service.restores import Restores

# How long a client may take to say what it wants.
OPEN_TIMEOUT_S = 10.0

# How long a list of regions may stand still before that is told.
LIST_TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


class NativeHandoff:
    """One client's connection: from open to the end of its restore, or a visit to another's."""

    def __init__(
        self, connection: socket.socket, restores: Restores, admission: Admission
    ) -> None:
        """Take ownership of *connection*."""
        self.restore: Restore | None = None
        self._visited: Restore | None = None
        self._connection = connection
        self._restores = restores
        self._admission = admission
        self._protocol = native.Protocol(
            native.Limits(admission.limits.sessions, admission.limits.regions)
        )
        self._listener: native.Listener | None = None  # until CRIU has connected
        self._criu_came = asyncio.Event()  # or need not be waited for: we are to stop
        self._aborted = False
        self._stopped = False
        self._criu: DropinHandoff | None = None
        self._peer = Peer.of(connection)
        self._memory = 0  # that it has been admitted
        admission.connections[self._peer.uid] += 1

    async def receive(self) -> None:
        """Carry out requests until the restore is released, or a visit has begun."""
        if reason := self._admission.reason_to_hang_up(self._peer.uid):
            raise HandoffError(f"hand-off: {reason}: hung up")
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
            if self._visited or (self.restore and self.restore.released):
                return
            message = await self._further()
        raise HandoffError("hand-off: the client closed the connection before it had finished")

    async def conclude(self) -> None:
        """Carry out requests until the client leaves, then wait for the end of its restore."""
        while await self._carry_out(await self._next()):
            pass
        if self._criu is not None:
            await self._criu.conclude()
        elif self.restore is not None:
            await self.restore.wait_ended()

    def stop(self) -> None:
        """Make the end of what was sent the end of file, here and where CRIU connects."""
        self._connection.shutdown(socket.SHUT_RD)
        self._stopped = True
        self._criu_came.set()
        if self._criu is not None:
            self._criu.stop()

    async def outlast(self) -> None:
        """Wait for the end of a process whose list of regions will not be complete any more.

        As long as its descriptor is open its threads wait: nobody knows their bytes.
        """
        fd = self._protocol.pending_fd
        while fd is not None and not uffd.is_gone(fd):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(PROBE_INTERVAL_S)

    def hang_up(self) -> None:
        """Close the connection, and CRIU's."""
        self._connection.close()
        self._admission.connections[self._peer.uid] -= 1
        if self._criu is not None:
            self._criu.hang_up()

    def close(self) -> None:
        """Close the files and images that came with it."""
        self._protocol.close()
        self._admission.memory[self._peer.uid] -= self._memory

    async def _further(self) -> fdpass.Message:
        if self._protocol.pending_fd is None:
            return await self._next()
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                return await self._next()
        except TimeoutError:
            # Its client is there, and may go on yet; but a process may be waiting, and nobody
            # would know why.
            assert self.restore is not None, "a list is that of a session"
            log.warning(
                "%s: hand-off: a list of regions has not gone on for %g s: until it is complete,"
                " its process is not served",
                self.restore.name,
                LIST_TIMEOUT_S,
            )
        return await self._next()

    async def _next(self) -> fdpass.Message:
        message = await wait_for_message(self._connection, native.PACKET_MAX + 1)
        with contextlib.suppress(ConnectionError):
            fdpass.consume(self._connection, message)
        return message

    # False where there is no request: the client has left.
    async def _carry_out(self, message: fdpass.Message) -> bool:
        with contextlib.closing(message):
            if not message.data:
                return False
            try:
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
        match step:
            case native.Opened():
                self.restore = self._open(step)
                return pb.Answer(restore=self.restore.name, id=self.restore.number)
            case native.Attached(number):
                self._visited = self._reach(number)
                return pb.Answer(restore=self._visited.name, id=number)
        restore = self.restore or self._visited
        assert restore is not None, "the protocol begins with one or the other"
        match step:
            case native.Session():
                await self._add(restore, step)
            case native.Listener():
                self._listen(step)
            case Pace():
                restore.set_pace(step)
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

    def _open(self, step: native.Opened) -> Restore:
        admission = self._admission
        if reasons := admission.reasons_against(self._peer, self._restores.nr_restores):
            raise native.Refused(reasons)
        return self._restores.begin(self._peer.uid, step.name, step.pace)

    def _reach(self, number: int) -> Restore:
        restore = self._restores.find(number)
        # Of another's restore one does not even hear that it is there.
        if restore is None or not self._admission.may_reach(self._peer, restore.owner):
            raise native.Refused([f"attach: no restore {number} is being served for you"])
        return restore

    async def _add(self, restore: Restore, step: native.Session) -> None:
        self._admit(step, [step.page_map])
        name = f"{restore.name}/{len(restore.sessions)}"
        with contextlib.ExitStack() as unwanted:
            unwanted.callback(step.close)
            # Before anything that is for another session is taken out of it.
            restore.check_new(name, step.fd)
            protocol = await agree(step)
            unwanted.pop_all()
        restore.add(
            name, step.fd, step.page_map, step.sources, pidfd=step.pidfd, protocol=protocol
        )

    def _listen(self, step: native.Listener) -> None:
        self._admit(step, step.checkpoint.page_maps.values())
        step.socket.setblocking(False)
        fdpass.ask_for_sender(step.socket)
        self._listener = step

    def _admit(self, step: native.Session | native.Listener, page_maps: Iterable[PageMap]) -> None:
        nr_bytes = sum(memory_of(each.nr_regions, each.nr_pages) for each in page_maps)
        if reasons := self._admission.reasons_against_memory(self._peer.uid, nr_bytes):
            step.close()
            raise native.Refused(reasons)
        self._admission.memory[self._peer.uid] += nr_bytes
        self._memory += nr_bytes

    async def _receive_criu(self, listener: native.Listener) -> None:
        with listener.socket as sock:
            connection = await self._accept(sock)
            self._listener = None
        sources = await asyncio.to_thread(sources_of, listener.checkpoint)
        assert self.restore is not None, "the protocol begins with it"
        self._criu = DropinHandoff(connection, listener.checkpoint, sources, self.restore)
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
