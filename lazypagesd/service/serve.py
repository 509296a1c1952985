"""``lazypagesd serve``: a daemon that any restore tool can hand its faults over to."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from lazypagesd.engine.restore import Restore
from lazypagesd.handoff import native
from lazypagesd.service import reload, systemd, upgrade
from lazypagesd.service.admission import Admission
from lazypagesd.service.estate import left_connection
from lazypagesd.service.listeners import Listeners, listening
from lazypagesd.service.metrics.address import Address
from lazypagesd.service.native_handoff import NativeHandoff
from lazypagesd.service.options import ServeLimits, ServeOptions
from lazypagesd.service.process import raise_descriptor_limit, stop_interrupting
from lazypagesd.service.restores import Restores
from lazypagesd.service.succession import Inheritance, keep
from lazypagesd.service.threads import in_thread

log = logging.getLogger(__name__)


def run(options: ServeOptions) -> int:
    """Serve restores until a signal, and what has finished to its end; return the exit code.

    Raises LazyPagesError or OSError when it cannot begin.
    """
    stop_interrupting()
    raise_descriptor_limit()
    gid = group_of(options.config.group)
    inheritance = Inheritance.take(os.environ)
    custody = keep(os.environ, inheritance, wanted=options.keeper)
    admission = Admission(options.config.limits, gid)
    handoffs = Handoffs(admission)
    restores = Restores(handoffs.begin, resume=handoffs.resume, custody=custody, stays=True)

    def enforce(limits: ServeLimits) -> None:
        admission.limits = limits
        restores.engine.let_poll(limits.poll_us * 1000)

    def ready() -> None:
        enforce(options.config.limits)
        reload.at_signal(options.reread, enforce)
        systemd.notify(os.environ, "READY=1")

    with listening(options.runtime_dir, gid, inheritance) as listeners:
        connections = inheritance.connections(listeners.handoff, custody)
        inheritance.close_useless(custody)
        upgrade.publish(options.runtime_dir, inheritance.estate)
        serving = restores.serve(
            listeners.handoff,
            shared=listeners.shared,
            ready=ready,
            estate=inheritance.estate,
            connections=connections,
            beside=lambda group: serve_admin(
                listeners, restores, admission, options.config.metrics, group
            ),
        )
        return asyncio.run(serving)


def serve_admin(
    listeners: Listeners,
    restores: Restores,
    admission: Admission,
    metrics: Address | None,
    group: asyncio.TaskGroup,
) -> Callable[[], None]:
    """Answer whoever asks, as soon as what that takes is there; return what ends it."""
    ends: list[Callable[[], None]] = []

    def bring_in() -> ModuleType:
        from lazypagesd.service import admin

        return admin

    async def begin() -> None:
        # Not before, and beside the loop: it is a lot, and processes whose daemon has died wait
        # until they are served again, not until somebody is told of them.
        admin = await in_thread(bring_in)
        ends.append(admin.serve(listeners, restores, admission, metrics, group))

    task = group.create_task(begin())

    def close() -> None:
        task.cancel()
        for end in ends:
            end()

    return close


@dataclass(frozen=True, slots=True)
class Handoffs:
    """How connections become hand-offs."""

    admission: Admission

    @property
    def limits(self) -> native.Limits:
        """Those of one restore."""
        return native.Limits(self.admission.limits.sessions, self.admission.limits.regions)

    def begin(self, connection: socket.socket, restores: Restores) -> NativeHandoff:
        """Return the hand-off of a new *connection*, which it takes over."""
        protocol = native.Protocol(self.limits)
        return NativeHandoff(connection, restores, self.admission, protocol)

    def resume(self, restore: Restore, restores: Restores) -> NativeHandoff:
        """Return the hand-off of a *restore* that another daemon has left."""
        assert restore.record is not None, "it was left by that"
        left = restore.record.message
        protocol = native.Protocol.take_over(
            self.limits,
            left.native,
            {source.fd for each in restore.live for source in each.sources if source.fd >= 0},
            over=restore.released
            or left.HasField("criu_connection")
            or left.native.HasField("listener"),
        )
        connection = left_connection(left, "connection", socket.SOCK_SEQPACKET)
        return NativeHandoff(connection, restores, self.admission, protocol, restore)


def group_of(name: str | None) -> int:
    """Return the group called *name*, which the configuration has found, or the daemon's own."""
    return os.getegid() if name is None else grp.getgrnam(name).gr_gid
