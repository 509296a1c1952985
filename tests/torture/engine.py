"""An engine alone, that processes hand themselves over to: the other end of handoff.c.

What the drop-in does not show is looked at here: whether the engine's books are right at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from lazypagesd.engine.engine import Engine
from lazypagesd.engine.restore import Restore
from lazypagesd.engine.session import End, Session, Trouble
from lazypagesd.engine.statistics import Counters, summary
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.pagemap import PageMap
from lazypagesd.sources.file import FileSource
from tests.engine.bed import accounted
from tests.support.descriptors import descriptors

SOCKET_NAME = "lazy-pages.socket"
UCRED = struct.Struct("3i")  # of SO_PEERCRED: pid, uid, gid
PID_SIZE = WORD_SIZE = 4


class WatchedEngine(Engine):
    """An engine that notes what each session had to account for when it was attached."""

    def __init__(self, nr_workers: int) -> None:
        super().__init__(nr_workers)
        for worker in self.workers:
            # Of any size, and however busy it is here.
            worker.pointer.helped_from_pages = 1
            worker.pointer.helper_wait_ns = 2**64 - 1
        self.owed: dict[Session, int] = {}
        self.used: set[int] = set()

    def attach(self, session: Session) -> None:
        """Attach, and note it."""
        self.owed[session] = session.state.nr_missing
        super().attach(session)
        assert session.worker is not None
        self.used.add(session.worker.number)


class Findings:
    """What went wrong; also the observer of every restore."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def session_ended(self, session: Session) -> None:
        """Processes are not let go of before they are filled, or gone."""
        if session.end not in (End.DRAINED, End.GONE):
            self.lines.append(f"{session.name}: ended {session.end}")

    def session_in_trouble(self, session: Session, trouble: Trouble) -> None:
        """There is nothing wrong with the image."""
        self.lines.append(f"{session.name}: {trouble}")

    def fork_delayed(self, session: Session, error: Exception) -> None:
        """There are descriptors enough."""
        self.lines.append(f"{session.name}: fork delayed: {error}")

    def unexpected(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Note what a callback of the loop has raised."""
        self.lines.append(f"{context['message']}: {context.get('exception')!r}")


def listen(directory: Path) -> socket.socket:
    """Listen in *directory*, to which it goes: the path may be too long for an address."""
    os.chdir(directory)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(SOCKET_NAME)
    listener.listen()
    return listener


def accept(listener: socket.socket) -> tuple[socket.socket, int, int]:
    """Return a connection, and the userfaultfd and the pidfd of the process behind it."""
    connection, _address = listener.accept()
    pid = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))[0]
    connection.recv(PID_SIZE, socket.MSG_WAITALL)
    _byte, [fd], _flags, _sender = socket.recv_fds(connection, 1, 1)
    connection.setblocking(False)
    return connection, fd, os.pidfd_open(pid)


async def serve_process(restore: Restore, connection: socket.socket) -> None:
    """Wait for the final word of a process, which is served already, and then for its end."""
    with connection:
        word = await asyncio.get_running_loop().sock_recv(connection, WORD_SIZE)
    assert len(word) == WORD_SIZE
    restore.release()
    await restore.wait_ended()


async def serve(
    engine: WatchedEngine, page_map: PageMap, listener: socket.socket, nr_processes: int
) -> Findings:
    """Serve so many processes until each has ended, with all that they have forked."""
    findings = Findings()
    asyncio.get_running_loop().set_exception_handler(findings.unexpected)
    sources = [FileSource.of(file.fd, file.name) for file in page_map.sources]
    before = descriptors()
    engine.start()
    async with asyncio.TaskGroup() as group:
        for number in range(nr_processes):
            connection, fd, pidfd = accept(listener)
            restore = Restore(f"restore {number}", engine, findings)
            restore.add(f"process {number}", fd, page_map, sources, pidfd=pidfd)
            group.create_task(serve_process(restore, connection))
    await engine.stop()
    if descriptors() != before:
        findings.lines.append(f"descriptors are left: {descriptors()}, not {before}")
    return findings


def audit(engine: WatchedEngine, nr_processes: int, *, huge: bool) -> Iterator[str]:
    """Yield what is wrong with the books."""
    for session, owed in engine.owed.items():
        for complaint in audit_session(session.counters, owed, huge=huge):
            yield f"{session.name}: {complaint}: {session.counters}"
        if session.end is End.DRAINED and session.counters.nr_missing:
            yield f"{session.name}: drained, with {session.counters.nr_missing} pages missing"
    idle = {worker.number for worker in engine.workers} - engine.used
    if idle and nr_processes >= len(engine.workers):
        yield f"workers {idle} were given no session"


def audit_session(counters: Counters, owed: int, *, huge: bool = False) -> Iterator[str]:
    """Yield which sums do not add up; *owed* pages were missing at first.

    With one fault a *huge* page is filled as a whole, pages that are zero included.
    """
    filled = counters.pages_fault + counters.pages_neighbour + counters.pages_drain
    answered = counters.pages_fault + counters.pages_zero
    if accounted(counters) != owed:
        yield f"{accounted(counters)} pages accounted for, not {owed}"
    if counters.bytes != filled * PAGE_SIZE:
        yield f"{counters.bytes} bytes are not {filled} pages"
    if counters.latency.count != answered and not huge:
        yield f"{counters.latency.count} latencies of {answered} faults"
    if counters.events_unknown or counters.held:
        yield f"{counters.events_unknown} events unknown, {counters.held} faults held"
    # What is counted down once too often ends up near 2**64.
    for item in fields(counters):
        value = getattr(counters, item.name)
        if item.name != "latencies" and value >= 2**63:
            yield f"{item.name} is below zero"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.engine")
    parser.add_argument("-D", dest="images", type=Path, required=True)
    parser.add_argument("-W", dest="work", type=Path, required=True)
    parser.add_argument("--status-fd", type=int, required=True, help="for a zero byte when ready")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--huge", action="store_true", help="their memory is of hugetlbfs")
    parser.add_argument("--pid", type=int, required=True, help="that they all have in the image")
    return parser.parse_args()


def main() -> int:
    """Serve, print how much and every finding; return 1 if there was one."""
    options = parse()
    images_fd = os.open(options.images, os.O_RDONLY | os.O_DIRECTORY)
    engine = WatchedEngine(options.workers)
    with Checkpoint.open(images_fd) as checkpoint, listen(options.work) as listener:
        os.write(options.status_fd, b"\0")
        os.close(options.status_fd)
        page_map = checkpoint.page_map(options.pid)
        findings = asyncio.run(serve(engine, page_map, listener, options.processes))
    findings.lines += audit(engine, options.processes, huge=options.huge)
    counters = Counters.total(session.counters for session in engine.owed)
    print(summary(counters))
    print(f"{counters.orders_guessed} orders guessed")
    print(*findings.lines, sep="\n")
    return 1 if findings.lines else 0


if __name__ == "__main__":
    sys.exit(main())
