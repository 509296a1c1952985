"""What the next daemon has to know of a restore, kept up to date in a memfd."""

from __future__ import annotations

import functools

from google.protobuf.message import Message

from lazypagesd.closing import Closing
from lazypagesd.engine.custody import Custody
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.record import RecordFile

MEMFD_NAME = "lazypagesd-restore"
# An answer to a client is the largest that is in it.
SIZE_MAX = 1 << 18


class RestoreRecord(Closing):
    """Owns its memfd, which is in custody, until close()."""

    def __init__(self, file: RecordFile, message: record_pb2.Restore, custody: Custody) -> None:
        """Use `create`, or take what another daemon has left.  Takes ownership of *file*."""
        self.message = message
        self._file = file
        self._custody = custody

    @classmethod
    def create(cls, message: record_pb2.Restore, custody: Custody) -> RestoreRecord:
        """Keep *message* from now on.  Raises SessionError if that cannot be."""
        record = cls(RecordFile.create(MEMFD_NAME, SIZE_MAX), message, custody)
        try:
            record.save()
            custody.keep([record.fd])
        except BaseException:
            record.close()
            raise
        return record

    @property
    def fd(self) -> int:
        """Its memfd."""
        return self._file.fd

    def save(self) -> None:
        """Write the message: from now on it is what the next daemon finds."""
        self._file.write(self.message.SerializeToString())

    def give_up(self, name: str) -> None:
        """Keep the descriptor in this field of the message, if it is set, no longer: it is about
        to be closed."""
        *path, field = name.split(".")
        part: Message = functools.reduce(getattr, path, self.message)
        if part.HasField(field):
            fd = getattr(part, field)
            part.ClearField(field)
            self.save()
            self._custody.drop([fd])

    def close(self) -> None:
        """Forget the restore, which has ended."""
        self._custody.drop([self.fd])
        self._file.close()


def fds_of(message: record_pb2.Restore) -> list[int]:
    """Return the descriptors that *message* names."""
    named = (
        (message, "connection"),
        (message, "criu_connection"),
        (message.criu, "images"),
        (message.native, "images"),
        (message.native, "listener"),
        (message.native, "pending"),
    )
    return [getattr(part, name) for part, name in named if part.HasField(name)]


def session_fds_of(message: record_pb2.Session) -> list[int]:
    """Return the descriptors that a session owns, but its state's."""
    return [message.fd, *([message.pidfd] if message.HasField("pidfd") else [])]
