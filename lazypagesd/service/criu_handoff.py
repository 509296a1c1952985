"""One restore by CRIU."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from lazypagesd.engine.restore import Restore
from lazypagesd.handoff import criu
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.sources.file import FileSource


class CriuHandoff:
    """One restore by CRIU, of a checkpoint that outlives it."""

    def __init__(
        self,
        connection: socket.socket,
        checkpoint: Checkpoint | None,
        sources: Mapping[int, FileSource],
        restore: Restore,
    ) -> None:
        """Take ownership of *connection*, which is the criu_connection of the restore's record.

        *checkpoint* may be None when the restore is released.
        """
        self._connection = connection
        self._checkpoint = checkpoint
        self._sources = sources
        self.restore = restore
        self._protocol: criu.Protocol | None = None

    async def receive(self) -> None:
        """Take over its processes, to the final word."""
        self._protocol = await criu.receive(
            self._connection, self._checkpoint, self._sources, self.restore
        )

    async def conclude(self) -> None:
        """Wait until they have ended, and look what was sent after the final word."""
        assert self._protocol is not None, "received"
        await self.restore.wait_ended()
        # Now, because the processes live on whatever it says, and want their pages.
        criu.check_end(self._connection, self._protocol)

    def stop(self) -> None:
        """Make the end of what it has sent the end of file."""
        self._connection.shutdown(socket.SHUT_RD)

    async def outlast(self) -> None:
        """Wait for nobody: each process is served as soon as its descriptor has come."""

    def hang_up(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            # So that whoever takes over, and finds it to be nobody's, sees that it is over.
            self._connection.shutdown(socket.SHUT_RDWR)
        if self.restore.record is not None:
            self.restore.record.give_up("criu_connection")
        self._connection.close()

    def close(self) -> None:
        """Do nothing: the checkpoint is not its own."""


def sources_of(checkpoint: Checkpoint) -> dict[int, FileSource]:
    """Return the pages files of *checkpoint* as sources, by their descriptors."""
    return {
        file.fd: FileSource.of(file.fd, file.name)
        for page_map in checkpoint.page_maps.values()
        for file in page_map.sources
    }
