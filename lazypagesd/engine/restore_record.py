"""What the next daemon has to know of a restore, kept up to date in a memfd."""

from __future__ import annotations

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

    def close(self) -> None:
        """Forget the restore, which has ended."""
        self._custody.drop([self.fd])
        self._file.close()
