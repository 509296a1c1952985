"""One restore of ``lazypagesd serve``: a client's requests, and their answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterable

from lazypagesd.engine.engine import PROBE_INTERVAL_S
from lazypagesd.engine.pace import Pace
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.restore import Restore
from lazypagesd.engine.restore_record import RestoreRecord
from lazypagesd.engine.state import memory_of
from lazypagesd.errors import HandoffError, LazyPagesError
from lazypagesd.handoff import native, packets
from lazypagesd.handoff.channel import agree
from lazypagesd.handoff.criu import wait_for_message
from lazypagesd.handoff.native import Step
from lazypagesd.images.pagemap import PageMap
from lazypagesd.kernel import fdpass, uffd
from lazypagesd.proto import handoff_pb2 as pb
from lazypagesd.service.admission import Admission, Peer
from lazypagesd.service.criu_handoff import CriuHandoff, sources_of
from lazypagesd.service.restores import Restores
from lazypagesd.service.threads import in_thread

# How long a client may take to say what it wants.
OPEN_TIMEOUT_S = 10.0

# How long a list of regions may stand still before that is told.
LIST_TIMEOUT_S = 10.0

LEFT_EARLY = "hand-off: the client closed the connection before it had finished"

log = logging.getLogger(__name__)


class NativeHandoff:
    """One client's connection: from open to the end of its restore, or a visit to another's.

    What a request does is noted before the request is taken out of the socket, and it is answered
    last of all; so a daemon that takes over finds which requests have been carried out.
    """

    def __init__(
        self,
        connection: socket.socket,
        restores: Restores,
        admission: Admission,
        protocol: native.Protocol,
        restore: Restore | None = None,
    ) -> None:
        """Take ownership of *connection* and *protocol*; *restore* is one that was left."""
        self.restore = restore
        self._visited: Restore | None = None
        self._connection = connection
        self._restores = restores
        self._admission = admission
        self._protocol = protocol
        self._listener: socket.socket | None = None  # until CRIU has connected
        self._criu_came = asyncio.Event()  # or need not be waited for: we are to stop
        self._aborted = False
        self._stopped = False
        self._criu: CriuHandoff | None = None
        self._peer = Peer.of(connection) if restore is None else Peer(restore.owner, frozenset())
        self._memory = 0  # that it has been admitted
        admission.connections[self._peer.uid] += 1

    async def receive(self) -> None:
        """Carry out requests until the restore is released, or a visit has begun."""
        if reason := self._admission.reason_to_hang_up(self._peer.uid):
            raise HandoffError(f"hand-off: {reason}: hung up")
        if self.restore is None:
            await self._begin()
        else:
            await self._go_on(self.restore)
        while not self._is_over():
            if not await self._carry_out(await self._further()):
                raise HandoffError(LEFT_EARLY)
            if self._aborted:
                raise HandoffError("hand-off: the client gave the restore up")
            await self._receive_criu()

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
        with contextlib.suppress(OSError):
            # So that whoever takes over, and finds it to be nobody's, sees that it is over.
            self._connection.shutdown(socket.SHUT_RDWR)
        if self.restore is not None and self.restore.record is not None:
            self.restore.record.give_up("connection")
        self._connection.close()
        self._admission.connections[self._peer.uid] -= 1
        if self._criu is not None:
            self._criu.hang_up()

    def close(self) -> None:
        """Close the files and images that came with it."""
        self._restores.custody.drop(self._protocol.fds)
        self._protocol.close()
        self._admission.memory[self._peer.uid] -= self._memory

    def _is_over(self) -> bool:
        return self._visited is not None or (self.restore is not None and self.restore.released)

    async def _begin(self) -> None:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                message = await self._next()
        except TimeoutError:
            raise HandoffError(f"hand-off: no request within {OPEN_TIMEOUT_S:g} s") from None
        if not await self._carry_out(message):
            raise HandoffError(LEFT_EARLY)

    # ---- what another daemon has left ----

    async def _go_on(self, restore: Restore) -> None:
        assert restore.record is not None, "it was left by that"
        left = restore.record.message
        # As far as it goes: nobody is refused what has been admitted.
        self._memory = sum(os.fstat(each.state.fd).st_blocks * 512 for each in restore.live)
        self._admission.memory[self._peer.uid] += self._memory
        if not left.native.nr_done:
            restore.record.give_up("native.images")
        if not restore.released:
            check_continuable(left)
            await in_thread(self._protocol.load_images)
        if left.native.answer:
            self._answer_again(left.native)
        elif left.native.nr_done:
            # It may be waiting for an answer that has been sent, or for one that has not.
            self._connection.shutdown(socket.SHUT_RDWR)
        if left.native.HasField("listener"):
            self._listener = socket.socket(fileno=left.native.listener)
        await self._receive_criu()

    def _answer_again(self, left: record_pb2.Native) -> None:
        # It may not have been sent, and its request may be there still.
        with contextlib.suppress(BlockingIOError, ConnectionError):
            message = fdpass.peek(self._connection, packets.PACKET_MAX + 1)
            with contextlib.closing(message):
                if message.data and packets.decode(message.data).number == left.nr_done:
                    fdpass.consume(self._connection, message)
        self._send(pb.Answer.FromString(left.answer))

    # ---- requests ----

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
        return await wait_for_message(self._connection, packets.PACKET_MAX + 1)

    # False where there is no request: the client has left.
    async def _carry_out(self, message: fdpass.Message) -> bool:
        with contextlib.closing(message):
            if not message.data:
                return False
            try:
                # Not in this thread, because a client's file may take its time to be looked at.
                step = await in_thread(self._protocol.feed, message)
                answer = await self._do(step)
                answer.accepted, answer.number = True, self._protocol.number
                finished = step is Step.FINISHED
                self._note(answer, finished=finished)
            except (LazyPagesError, OSError) as error:
                reasons = error.reasons if isinstance(error, packets.Refused) else [str(error)]
                self._consume(message)
                self._send(pb.Answer(refused=packets.shorten(reasons)))
                raise
            if finished and self.restore is not None:
                self.restore.release()
            self._consume(message)
            self._send(answer)
        return True

    # That a restore is released is noted at once with what has asked for it, which would else be
    # too late when it is carried out once more.
    def _note(self, answer: pb.Answer, *, finished: bool) -> None:
        if self.restore is None or self.restore.record is None:
            return
        self._restores.custody.keep(self._protocol.fds)
        record = self.restore.record
        self._protocol.note(record.message.native)
        record.message.native.answer = answer.SerializeToString() if answer.number else b""
        record.message.released |= finished
        record.save()

    async def _do(self, step: native.Outcome) -> pb.Answer:
        match step:
            case native.Opened():
                # One that was left before it was noted is there.
                self.restore = self.restore or self._open(step)
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
                self._listen(restore, step)
            case Pace():
                restore.set_pace(step)
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
            raise packets.Refused(reasons)
        images = self._protocol.images_fd
        record = record_pb2.Restore(
            name=step.name,
            owner=self._peer.uid,
            pace=step.pace.rate,
            connection=self._connection.fileno(),
            native=record_pb2.Native(images=images),
        )
        return self._restores.begin(record)

    def _reach(self, number: int) -> Restore:
        if reasons := self._admission.reasons_against_connection(self._peer):
            raise packets.Refused(reasons)
        restore = self._restores.find(number)
        # Of another's restore one does not even hear that it is there.
        if restore is None or not self._admission.may_reach(self._peer, restore.owner):
            raise packets.Refused([f"attach: no restore {number} is being served for you"])
        return restore

    async def _add(self, restore: Restore, step: native.Session) -> None:
        name = f"{restore.name}/{step.index}"
        if restore.has_session(name):
            # By another daemon, which had not noted it yet.
            step.close()
            return
        self._admit(step, [step.page_map])
        with contextlib.ExitStack() as unwanted:
            unwanted.callback(step.close)
            # Before anything that is for another session is taken out of it.
            restore.check_new(name, step.fd)
            protocol = await agree(step)
            unwanted.pop_all()
        restore.add(
            name, step.fd, step.page_map, step.sources, pidfd=step.pidfd, protocol=protocol
        )

    def _admit(self, step: native.Session | native.Listener, page_maps: Iterable[PageMap]) -> None:
        nr_bytes = sum(memory_of(each.nr_regions, each.nr_pages) for each in page_maps)
        if reasons := self._admission.reasons_against_memory(self._peer.uid, nr_bytes):
            step.close()
            raise packets.Refused(reasons)
        self._admission.memory[self._peer.uid] += nr_bytes
        self._memory += nr_bytes

    def _send(self, answer: pb.Answer) -> None:
        # Who does not read the answers waits for none; who has left is met at the next request.
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._connection.send(answer.SerializeToString())

    def _consume(self, message: fdpass.Message) -> None:
        with contextlib.suppress(ConnectionError):
            fdpass.consume(self._connection, message)

    # ---- a restore by CRIU ----

    def _listen(self, restore: Restore, step: native.Listener) -> None:
        self._admit(step, step.checkpoint.page_maps.values())
        step.socket.setblocking(False)
        fdpass.ask_for_sender(step.socket)
        if restore.record is not None:
            self._restores.custody.keep([step.socket.fileno()])
            restore.record.message.native.listener = step.socket.fileno()
        self._listener = step.socket

    async def _receive_criu(self) -> None:
        restore = self.restore
        if restore is None or restore.record is None:
            return
        if self._listener is not None:
            await self._accept_criu(self._listener, restore.record)
        if not restore.record.message.HasField("criu_connection"):
            return
        connection = socket.socket(fileno=restore.record.message.criu_connection)
        connection.setblocking(False)
        checkpoint = self._protocol.checkpoint
        sources = await in_thread(sources_of, checkpoint) if checkpoint else {}
        self._criu = CriuHandoff(connection, checkpoint, sources, restore)
        if self._stopped:
            self._criu.stop()
        await self._criu.receive()

    async def _accept_criu(self, listener: socket.socket, record: RestoreRecord) -> None:
        with listener:
            try:
                # Whoever died may have accepted it already.
                if not record.message.HasField("criu_connection"):
                    connection = await self._accept(listener)
                    self._restores.custody.keep([connection.fileno()])
                    record.message.criu_connection = connection.detach()
            finally:
                self._listener = None
                record.give_up("native.listener")

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
        return connection


def check_continuable(left: record_pb2.Restore) -> None:
    """Raise HandoffError if a hand-off that was left cannot be gone on with."""
    died = "hand-off: the daemon died"
    if left.native.HasField("pending"):
        raise HandoffError(f"{died} in the middle of a list of regions: begin anew")
    if left.HasField("connection") and left.native.nr_done and not left.native.answer:
        raise HandoffError(f"{died}, and the client's requests have no numbers: begin anew")
    if not left.HasField("connection") and not left.HasField("criu_connection"):
        raise HandoffError(f"{died}, and the client has left")


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
