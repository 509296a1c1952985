"""What the service manager hears while all goes well: a line for people, and that we are alive.

Some facts (man 3 sd_notify): STATUS= is what ``systemctl status`` shows.  Where WATCHDOG_USEC is
set, for WATCHDOG_PID, WATCHDOG=1 has to come at least that often, or the manager kills us and
starts the next daemon.  A manager that is busy does not read for a while, and a datagram that
finds its socket full would wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Collection, Mapping

from lazypagesd.engine.engine import Engine
from lazypagesd.engine.restore import Restore
from lazypagesd.service import systemd

INTERVAL_S = 1.0
# So many times within the manager's patience, for a turn may take a while.
NR_FEEDINGS = 4


@contextlib.asynccontextmanager
async def telling(
    engine: Engine, restores: Collection[Restore], environment: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """Tell the service manager, if there is one, of *restores* as they are and of *engine*, for as
    long as the block lasts."""
    sock = systemd.connect_notify(environment)
    if sock is None:
        yield
        return
    with sock:
        sock.setblocking(False)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(tell(sock, engine, restores, watchdog_s(environment)))
            try:
                yield
            finally:
                task.cancel()


async def tell(
    sock: socket.socket, engine: Engine, restores: Collection[Restore], patience_s: float | None
) -> None:
    """Say over and over what there is to say; *patience_s* is the watchdog's."""
    interval_s = min(INTERVAL_S, patience_s / NR_FEEDINGS) if patience_s else INTERVAL_S
    said = ""
    while True:
        if (status := status_of(restores)) != said and send(sock, f"STATUS={status}"):
            said = status
        # Who has not taken a turn since the last time, though he was asked to, hangs.
        if patience_s and engine.is_turning():
            send(sock, "WATCHDOG=1")
        await asyncio.sleep(interval_s)


def send(sock: socket.socket, state: str) -> bool:
    """Send *state*, if the manager takes it now: the next one comes soon."""
    try:
        sock.send(state.encode())
    except OSError:
        return False
    return True


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return how long the manager waits for a sign of life, if it does."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(environment.get("WATCHDOG_USEC", "0")) / 1e6 or None


def status_of(restores: Collection[Restore]) -> str:
    """Say how far *restores* are, in a line."""
    live = [session for restore in restores for session in restore.live]
    if not live:
        return f"{count(len(restores), 'restore')}, no session"
    nr_pages = sum(session.state.nr_pages for session in live)
    nr_missing = sum(session.state.nr_missing for session in live)
    filled = 100 * (nr_pages - nr_missing) // nr_pages if nr_pages else 100
    waiting_ns = [ns for session in live if (ns := session.oldest_waiting_ns) is not None]
    oldest = f"oldest fault {duration(max(waiting_ns))}" if waiting_ns else "no fault waiting"
    return (
        f"{count(len(restores), 'restore')}, {count(len(live), 'session')}, {filled} % filled,"
        f" {nr_missing} pages missing, {oldest}"
    )


def duration(ns: int) -> str:
    """Say how long that is, in a unit that suits it."""
    units = ("s", 10**9), ("ms", 10**6)
    for unit, unit_ns in units:
        if ns >= 10 * unit_ns:
            return f"{ns // unit_ns} {unit}"
    return f"{ns // 1000} us"


def count(number: int, what: str) -> str:
    """Say how many there are of *what*."""
    return f"{number} {what}" + ("" if number == 1 else "s")
