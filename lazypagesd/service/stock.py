"""Finding what descriptors amount to that a daemon has left behind: its estate.

Descriptors are under the numbers that they had (inherited.py).  What is broken is logged, and
fails alone: a process whose session cannot be taken over waits for its pages, and reads no zeros,
for as long as its userfaultfd is open.  What another version has left is not broken: we do not
begin, so that all of it is there still for the daemon that can go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Set

from google.protobuf.message import DecodeError, Message

from lazypagesd.engine import recorder, restore_record
from lazypagesd.engine import state as states
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.record import RecordFile
from lazypagesd.engine.recorder import Recorder
from lazypagesd.engine.state import State
from lazypagesd.errors import ForeignStateError, LazyPagesError, SessionError
from lazypagesd.kernel import pidfd
from lazypagesd.kernel.descriptors import target
from lazypagesd.service.estate import (
    DAEMON_MEMFD_NAME,
    Estate,
    LeftRestore,
    LeftSession,
    is_connected_to,
    is_listening,
)

log = logging.getLogger(__name__)


def take_stock(fds: Set[int]) -> Estate:
    """Find what *fds* amount to; those that nobody claims stay the caller's."""
    estate = Estate()
    for fd in named(fds, DAEMON_MEMFD_NAME):
        take(take_daemon, fd, fds, estate)
    for fd in named(fds, restore_record.MEMFD_NAME):
        take(take_restore, fd, fds, estate)
    for fd in named(fds, states.MEMFD_NAME):
        take(take_session, fd, fds, estate)
    estate.recorders = take_recorders(fds)
    settle_forks(estate, fds)
    for restore in estate.restores.values():
        settle_handed_over(restore)
    for fd in sorted(fds - estate.claims()):
        settle_accepted(estate, fd, fds)
    return estate


def named(fds: Set[int], name: str) -> list[int]:
    """Return which of *fds* are memfds of that name."""
    return [fd for fd in sorted(fds) if target(fd).startswith(f"/memfd:{name}")]


def take(
    how: Callable[[int, Set[int], Estate], None], fd: int, fds: Set[int], estate: Estate
) -> None:
    """Take the thing in *fd*, and log what is wrong with it.

    Raises ForeignStateError, before anything has been changed, if it is not for us.
    """
    name = target(fd)
    try:
        how(fd, fds, estate)
    except ForeignStateError as error:
        raise ForeignStateError(
            f"{name}: {error}: start the one that has left it, or a newer one"
        ) from None
    except (LazyPagesError, OSError, DecodeError, ValueError) as error:
        estate.is_whole = False
        log.error("%s: %s; who waits for a page of it goes on waiting", name, error)


def take_recorders(fds: Set[int]) -> list[Recorder]:
    """Return the flight recorders that can be read, in the order of their workers."""
    found = []
    for fd in sorted(named(fds, recorder.MEMFD_NAME), key=target):
        try:
            found.append(Recorder.take_over(fd))
        except (SessionError, OSError) as error:
            log.warning("%s: %s, ignoring: what it had is forgotten", target(fd), error)
    return found


def left_file(fd: int) -> RecordFile | None:
    """Return the record in *fd*; None if whoever was making it had not got to its size."""
    return RecordFile(fd) if os.fstat(fd).st_size else None


def take_daemon(fd: int, fds: Set[int], estate: Estate) -> None:
    """Add what the daemon needs to begin."""
    if (file := left_file(fd)) is None:
        return
    message = file.read()
    if message is None:
        file.unmap()
        return
    estate.daemon, estate.daemon_file = record_pb2.Daemon.FromString(message), file
    refuse_unknown(estate.daemon)
    for name in ("listener", "admin"):
        listener = getattr(estate.daemon, name)
        if listener not in fds or not is_listening(listener):
            estate.daemon.ClearField(name)


def take_restore(fd: int, fds: Set[int], estate: Estate) -> None:
    """Add a restore to *estate*; one that had not come to be is none."""
    if (file := left_file(fd)) is None:
        return
    with contextlib.ExitStack() as undo:
        undo.callback(file.unmap)
        if (message := file.read()) is None:
            return
        record = record_pb2.Restore.FromString(message)
        refuse_unknown(record)
        undo.pop_all()
    estate.restores[record.number] = LeftRestore(record, file)


def take_session(fd: int, fds: Set[int], estate: Estate) -> None:
    """Add a session to its restore in *estate*; one that had not come to be is none."""
    if (state := State.take_over(fd)) is None:
        return
    with contextlib.ExitStack() as undo:
        undo.callback(state.unmap)
        record = record_pb2.Session.FromString(state.record.read() or b"")
        refuse_unknown(record)
        if record.fd not in fds:
            raise SessionError(f"process {record.name}: its userfaultfd has been lost")
        if record.restore not in estate.restores:
            raise SessionError(f"process {record.name}: nothing is known of its restore")
        undo.pop_all()
    if record.HasField("pidfd") and not (record.pidfd in fds and pidfd.is_pidfd(record.pidfd)):
        record.ClearField("pidfd")
    for source in record.sources:
        if source.fd not in fds:
            # Its number may be another's soon.  To read from none is an error that is told.
            source.fd = -1
    estate.restores[record.restore].sessions.append(LeftSession(record, state))


def refuse_unknown(message: Message) -> None:
    """Raise ForeignStateError if a newer daemon has left something that we do not know."""
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise ForeignStateError("a newer lazypagesd has left it")


def settle_forks(estate: Estate, fds: Set[int]) -> None:
    """See to the children whose FORK has been read: each is known, or to be found, or lost."""
    sessions = [session for restore in estate.restores.values() for session in restore.sessions]
    known = {session.record.fd for session in sessions}
    for session in sessions:
        for child_fd in session.state.forks:
            if child_fd in known:
                session.state.disown(child_fd)
            elif child_fd not in fds:
                session.state.disown(child_fd)
                log_lost_child(session.record.name)


def settle_handed_over(restore: LeftRestore) -> None:
    """Note that the process which CRIU was handing over has come, if its session is there."""
    criu = restore.record.criu
    if criu.HasField("pid") and criu.pid in [each.record.image_pid for each in restore.sessions]:
        criu.done.append(criu.pid)
        criu.ClearField("pid")


def settle_accepted(estate: Estate, fd: int, fds: Set[int]) -> None:
    """Give what CRIU has connected, if *fd* is that, and what it may have sent all it has to, to
    the restore that was about to note it.

    Of the socket that it came to, nothing but the address is known, which others may have.
    """
    found = [
        restore.record
        for restore in estate.restores.values()
        if restore.record.native.listener in fds and is_accepted_for(fd, restore.record)
    ]
    if len(found) == 1:
        found[0].criu_connection = fd
    elif found:
        estate.disputed.add(fd)
        log.error(
            "a connection by criu is that of one of these: %s; it is not served, and its processes"
            " wait for their pages: kill them, and restore them anew",
            ", ".join(record.name for record in found),
        )


def is_accepted_for(fd: int, record: record_pb2.Restore) -> bool:
    """Whether *fd* is a connection to where CRIU is to connect for this restore."""
    if record.HasField("criu_connection") or not is_listening(record.native.listener):
        return False
    with socket.socket(fileno=os.dup(record.native.listener)) as listener:
        return is_connected_to(fd, listener)


def log_lost_child(name: str) -> None:
    """Say that nobody has the userfaultfd of a child any more."""
    log.error(
        "process %s: has forked, and the daemon died before the child's userfaultfd was safe:"
        " the child reads zeros where pages were missing: kill it, and restore it anew",
        name,
    )
