"""CRIU's hand-off: what ``criu restore --lazy-pages`` writes to lazy-pages.socket.

Some facts about it (CRIU 4.2, checked against 4.1.1):

- The stream has one record for each process of pstree.img, in any order: an ``int32`` pid, as
  dumped, in host byte order; then, if the pid is positive, one further byte with the process's
  userfaultfd as SCM_RIGHTS. A negative pid is a zombie's, and comes alone.
- After all records, when the processes are about to go on: the word 0x52535446. Then end of file,
  some time: a restore in the foreground keeps the connection for as long as what it has restored
  lives.  Nothing is ever written back.
- Each process sends its own record, so that with SO_PASSPIDFD set the record's pidfd is that very
  process's.
- A descriptor comes before the process has registered any memory with it. So its faults are to be
  answered at once, and nothing is to be filled unasked before the final word.
- If the connection is closed before the final word, the restore fails and kills what it has made.

What is sent is looked at, and taken out of the socket when what it says has been done and noted: a
daemon that takes over finds there what the other one has not finished, and knows what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.restore import Restore
from lazypagesd.errors import HandoffError
from lazypagesd.handoff.vetting import reasons_against
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.kernel import fdpass, uffd
from lazypagesd.kernel.descriptors import target
from lazypagesd.sources.file import FileSource

PID = struct.Struct("=i")
WORD = struct.Struct("=I")
RESTORE_FINISHED = 0x52535446  # "RSTF"; LAZY_PAGES_RESTORE_FINISHED, sent by criu restore


@dataclass(frozen=True, slots=True)
class Record:
    """A process that is to be served.  The receiver owns *fd* and *pidfd*."""

    pid: int
    fd: int
    pidfd: int | None


class Stage(enum.Enum):
    """What comes next on the stream."""

    PID = enum.auto()
    DESCRIPTOR = enum.auto()
    WORD = enum.auto()
    END = enum.auto()


class Protocol:
    """The stream of one restore as a state machine: receive what is wanted, and feed it.

    *zombies* says of each pid of the checkpoint whether it is one.  *left* is what another daemon
    has noted of the same stream.
    """

    def __init__(self, zombies: Mapping[int, bool], left: record_pb2.Criu | None = None) -> None:
        left = left or record_pb2.Criu()
        self.done = list(left.done)  # pids, as they were sent
        self._zombies = {
            pid: zombie
            for pid, zombie in zombies.items()
            if pid not in map(abs, self.done) and pid != left.pid
        }
        self._pid = left.pid
        self.stage = Stage.DESCRIPTOR if left.HasField("pid") else self._next_record()

    @property
    def wanted(self) -> int:
        """How many bytes to receive next: never more than belong together."""
        return PID.size if self.stage in (Stage.PID, Stage.WORD) else 1

    def feed(self, message: fdpass.Message) -> Record | None:
        """Take what was received; no bytes mean end of file.  Raises HandoffError.

        Takes what it needs out of *message*, whose rest stays the caller's to close.
        """
        match self.stage:
            case Stage.PID:
                self._feed_pid(message.data)
            case Stage.DESCRIPTOR:
                return self._feed_descriptor(message)
            case Stage.WORD:
                self._feed_word(message.data)
            case Stage.END:
                if message.data:
                    raise HandoffError(f"hand-off: {message.data!r} follows the final word")
        return None

    @property
    def finished(self) -> bool:
        """Whether the final word has come."""
        return self.stage is Stage.END

    def note(self, criu: record_pb2.Criu) -> None:
        """Write into *criu* what a daemon that takes the stream over has to know."""
        # What was noted before stays as it was.
        criu.done.extend(self.done[len(criu.done) :])
        criu.ClearField("pid")
        if self.stage is Stage.DESCRIPTOR:
            criu.pid = self._pid

    def is_done(self, message: fdpass.Message) -> bool:
        """Whether *message*, the first that is found, is one that has been done, and was left."""
        match self.stage:
            case Stage.DESCRIPTOR:
                return message.data == PID.pack(self._pid)
            case Stage.END:
                return message.data == WORD.pack(RESTORE_FINISHED)
        if len(message.data) == 1:
            return bool(message.fds)
        return message.data in map(PID.pack, self.done)

    def _feed_pid(self, data: bytes) -> None:
        left = f"{len(self._zombies)} of the processes are yet to come"
        if not data:
            raise HandoffError(f"hand-off: the restore closed the connection while {left}")
        if len(data) < PID.size:
            raise HandoffError(f"hand-off: short read of a pid ({data.hex()}), {left}")
        [pid] = PID.unpack(data)
        zombie = self._zombies.pop(abs(pid), None)
        if zombie is None:
            raise HandoffError(
                f"hand-off: pid {pid} is not in the checkpoint, or came before:"
                " restore from the same images directory"
            )
        if zombie != (pid < 0):
            found = "a zombie" if zombie else "no zombie"
            raise HandoffError(f"hand-off: pid {pid}: it is {found} in the checkpoint")
        self._pid = pid
        if pid > 0:
            self.stage = Stage.DESCRIPTOR
        else:
            self.done.append(pid)
            self.stage = self._next_record()

    def _feed_descriptor(self, message: fdpass.Message) -> Record:
        if not message.data:
            raise HandoffError(
                f"hand-off: the restore closed the connection before the descriptor of {self._pid}"
            )
        if len(message.fds) != 1:
            raise HandoffError(
                f"hand-off: {len(message.fds)} descriptors came for pid {self._pid}, not 1"
            )
        vet(message.fds[0], self._pid)
        self.done.append(self._pid)
        self.stage = self._next_record()
        return Record(self._pid, message.fds.pop(), message.take_pidfd())

    def _feed_word(self, data: bytes) -> None:
        if not data:
            raise HandoffError(
                "hand-off: the restore closed the connection before it had finished"
            )
        if len(data) < WORD.size or WORD.unpack(data)[0] != RESTORE_FINISHED:
            raise HandoffError(
                f"hand-off: the final word is {data.hex()}, not {RESTORE_FINISHED:#x}"
            )
        self.stage = Stage.END

    def _next_record(self) -> Stage:
        return Stage.PID if self._zombies else Stage.WORD


def vet(fd: int, pid: int) -> None:
    """Raise HandoffError, with every reason, if *fd* cannot be served exactly."""
    found = uffd.describe(fd)
    if found is None:
        raise HandoffError(
            f"hand-off: the descriptor of pid {pid} is no userfaultfd ({target(fd)})"
        )
    reasons = reasons_against(found, remedy="ask for all four events in UFFDIO_API")
    if reasons:
        raise HandoffError(
            f"hand-off: the userfaultfd of pid {pid} cannot be served: {'; '.join(reasons)}"
        )


async def receive(
    connection: socket.socket,
    checkpoint: Checkpoint | None,
    sources: Mapping[int, FileSource],
    restore: Restore,
) -> Protocol:
    """Take over every process that comes on *connection*; release *restore* at the final word.

    *checkpoint* may be None when it has been released, *sources* are its pages files by their
    descriptors.  Returns what check_end() is
    given.  Raises HandoffError when the stream breaks its protocol; what was taken over until
    then is *restore*'s, and still served.
    """
    record = restore.record
    zombies = {task.pid: task.zombie for task in checkpoint.tasks} if checkpoint else {}
    protocol = Protocol(zombies, record.message.criu if record else None)
    if restore.released:
        protocol.stage = Stage.END
    await skip_done(connection, protocol)
    while not protocol.finished:
        message = await wait_for_message(connection, protocol.wanted)
        with contextlib.closing(message):
            process = protocol.feed(message)
            if process is not None:
                assert checkpoint is not None, "its processes are those that come"
                add(process, checkpoint, sources, restore)
            note(protocol, restore)
            if fdpass.consume(connection, message) not in (1, None) and process is not None:
                raise HandoffError(
                    f"hand-off: the descriptor of pid {process.pid} came beside other bytes"
                )
    return protocol


def add(
    process: Record,
    checkpoint: Checkpoint,
    sources: Mapping[int, FileSource],
    restore: Restore,
) -> None:
    """Serve a process from now on, which the images call by its pid."""
    page_map = checkpoint.page_map(process.pid)
    restore.add(
        f"{restore.name}/{process.pid}",
        process.fd,
        page_map,
        [sources[file.fd] for file in page_map.sources],
        pidfd=process.pidfd,
        image_pid=process.pid,
    )


def note(protocol: Protocol, restore: Restore) -> None:
    """Note what has been done, for a daemon that takes over; release at the final word."""
    if restore.record is not None:
        protocol.note(restore.record.message.criu)
        restore.record.save()
    if protocol.finished:
        restore.release()


async def skip_done(connection: socket.socket, protocol: Protocol) -> None:
    """Take out of the socket what another daemon has done, and was about to take."""
    if protocol.finished:
        # Nothing need follow the final word, not even the end of the file.
        with contextlib.suppress(BlockingIOError, ConnectionError):
            skip_if_done(connection, protocol, fdpass.peek(connection, WORD.size))
    elif protocol.done or protocol.stage is Stage.DESCRIPTOR:
        skip_if_done(connection, protocol, await wait_for_message(connection, PID.size))


def skip_if_done(connection: socket.socket, protocol: Protocol, message: fdpass.Message) -> None:
    """Take *message* out of the socket, if it has been done."""
    with contextlib.closing(message):
        if protocol.is_done(message):
            fdpass.consume(connection, message)


def check_end(connection: socket.socket, protocol: Protocol) -> None:
    """Raise HandoffError if anything came after the final word; do not wait for the end of
    file."""
    try:
        message = fdpass.receive(connection, protocol.wanted)
    except (BlockingIOError, ConnectionError):
        return
    with contextlib.closing(message):
        protocol.feed(message)


async def wait_for_message(connection: socket.socket, size: int) -> fdpass.Message:
    """Wait for at most *size* bytes with what comes beside them, and leave them there.

    A connection that is broken has none.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            return fdpass.peek(connection, size)
        except BlockingIOError:
            readable = asyncio.Event()  # may be set though the wait was cancelled, as a future not
            loop.add_reader(connection, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(connection)
        except ConnectionError:
            return fdpass.Message(b"")
