"""The restores by CRIU of one checkpoint, as the drop-in serves them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

from lazypagesd.engine.custody import Custody
from lazypagesd.engine.pace import Pace
from lazypagesd.engine.pb import record_pb2
from lazypagesd.engine.restore import Restore
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.kernel import fdpass
from lazypagesd.service.criu_handoff import CriuHandoff, sources_of
from lazypagesd.service.estate import Estate, left_connection
from lazypagesd.service.options import DropinOptions
from lazypagesd.service.process import release_signals
from lazypagesd.service.restores import Restores


def serve(
    listener: socket.socket,
    checkpoint: Checkpoint,
    options: DropinOptions,
    custody: Custody,
    *,
    estate: Estate | None = None,
    connections: Iterable[socket.socket] = (),
) -> int:
    """Serve the restores of *checkpoint* until all that came are filled; return the exit code.

    Those of *estate* and those *connections* were accepted by another daemon.  Takes ownership of
    *listener*, and of what was left.
    """
    restores = restores_of(checkpoint, options.pace, custody)
    serving = restores.serve(
        listener, ready=release_signals, estate=estate, connections=connections
    )
    code = asyncio.run(serving)
    restores.report(to_stdout=not options.daemon)
    return code


def restores_of(checkpoint: Checkpoint, pace: Pace, custody: Custody) -> Restores:
    """Return the restores, by CRIU, of *checkpoint*, which stays open as long, at *pace*."""
    sources = sources_of(checkpoint)

    def hand_off(connection: socket.socket, restores: Restores) -> CriuHandoff:
        record = record_pb2.Restore(
            owner=fdpass.peer_uid(connection),
            pace=pace.rate,
            criu_connection=connection.fileno(),
        )
        return CriuHandoff(connection, checkpoint, sources, restores.begin(record))

    def resume(restore: Restore, restores: Restores) -> CriuHandoff:
        assert restore.record is not None, "it was left by that"
        left = restore.record.message
        connection = left_connection(left, "criu_connection", socket.SOCK_STREAM)
        return CriuHandoff(connection, checkpoint, sources, restore)

    return Restores(hand_off, resume=resume, custody=custody)
