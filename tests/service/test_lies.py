"""Clients that lie, flood, or stop in the middle: each harms its own restore at most."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from lazypagesd.proto import handoff_pb2 as pb
from tests.service.daemon import DEADLINE_S, LONG_GRACE, NO_GRACE, OFTEN, wait_until
from tests.service.serving import (
    FINISHED,
    PAGE_SIZE,
    PROGRESS,
    RELEASE,
    Client,
    Server,
    opening,
    regions_of,
    session,
)
from tests.service.stage import BASE, Restored, Stage, handed_over, stage
from tests.support.image import Image
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd

NO_PATIENCE = {"lazypagesd.service.native_handoff.LIST_TIMEOUT_S": 0.1}
NR_CONNECTIONS = 1000
NR_ALLOWED = 32
LEFT_EARLY = "hand-off: the client closed the connection before it had finished"


def write_again(image: Image) -> None:
    """Make the file what it was."""
    Image(image.path, [(part.start, part.nr_pages) for part in image.parts])


def begin_list(server: Server, restored: Restored) -> Client:
    """Return a client that has begun a list of regions, for whose process a thread waits."""
    client = server.client()
    client.do(opening())
    first, *_ = regions_of(restored.image)
    client.do(session([first], more=True), restored.fd, restored.file)
    restored.victim.begin_reading(BASE)
    wait_until(lambda: restored.nr_waiting() == 1, lambda: "a thread at a page")
    restored.close()
    return client


def serve_another(stage: Stage, server: Server) -> None:
    """Hand another process over, from beginning to end."""
    restored = stage.restored()
    client = handed_over(server, restored)
    client.do(FINISHED)
    assert client.do(RELEASE).state.ended
    restored.check()
    client.close()


def test_file_that_shrinks_is_waited_for(stage: Stage) -> None:
    """A page that its file has lost is named in the log and waited for, while others come; it is
    right once the file is whole again."""
    server, restored = stage.server(times=OFTEN), stage.restored()
    client = handed_over(server, restored)
    last = restored.image.parts[0]  # whose bytes are the last in the file
    os.truncate(restored.image.path, last.key * PAGE_SIZE + 100)
    restored.victim.begin_reading(last.start)
    server.wait_for_log(f"page {last.start:#x} is waited for and cannot be filled")
    serve_another(stage, server)
    write_again(restored.image)
    restored.close()
    assert asyncio.run(restored.victim.end_reading()) == restored.image.bytes(last.start, 1)
    client.do(FINISHED)
    assert client.do(RELEASE).state.ended
    restored.check()


def test_list_that_never_ends_is_told_of(stage: Stage) -> None:
    """A client that stops in a list and stays keeps its own process waiting, which the log says,
    and nobody else; when the process is killed and the client gone, nothing stays."""
    server, restored = stage.server(times=NO_PATIENCE | NO_GRACE), stage.restored()
    before = server.fds()
    client = begin_list(server, restored)
    server.wait_for_log("restore 1: hand-off: a list of regions has not gone on for 0.1 s")
    serve_another(stage, server)
    client.do(pb.Request(add_regions=pb.AddRegions(regions=regions_of(restored.image)[1:])))
    restored.check()
    client.close()
    restored.victim.kill()
    server.wait_for_fds(before)


def test_process_without_its_whole_list_reads_no_zeros(stage: Stage) -> None:
    """Whose client dies within a list waits, as nobody knows its bytes, until it is killed."""
    server, restored = stage.server(times=LONG_GRACE), stage.restored()
    before = server.fds()
    begin_list(server, restored).close()
    server.wait_for_log(LEFT_EARLY)
    serve_another(stage, server)
    assert "restore 1: ended" not in server.log
    assert "anon_inode:[userfaultfd]" in server.fds()
    restored.victim.kill()
    server.wait_for_log("restore 1: ended")
    server.wait_for_fds(before)
    assert len(server.errors) == 1


def test_process_without_its_whole_list_is_given_up(stage: Stage) -> None:
    """One that nobody kills is let go of with a word."""
    server, restored = stage.server(times=NO_GRACE), stage.restored()
    before = server.fds()
    begin_list(server, restored).close()
    server.wait_for_fds(before)
    [_, given_up] = server.errors
    assert given_up == "restore 1: its processes live on without a restore, giving them up"


# A restore tool that does as many of its steps as it is told to, and then waits to be killed.
TOOL = """
import os, signal, sys
from itertools import islice
from pathlib import Path
from lazypagesd.client import Region, Restore
path, nr_steps, uffd, pidfd, file, *regions = sys.argv[1:]
numbers = [int(number) for number in regions]
regions = [Region(*numbers[i : i + 3]) for i in range(0, len(numbers), 3)]
steps = [
    lambda restore: restore.add_session(
        int(uffd), regions=regions, files=[int(file)], pidfd=int(pidfd)
    ),
    lambda restore: restore.finished(),
    lambda restore: restore.release(),
]
restore = Restore.open("tool", Path(path))
for step in islice(steps, int(nr_steps)):
    step(restore)
os.write(1, b"!")
signal.pause()
"""


def start_tool(server: Server, restored: Restored, nr_steps: int) -> subprocess.Popen[bytes]:
    """Start a restore tool, and return when it has done its steps."""
    numbers = [
        str(number)
        for region in regions_of(restored.image)
        for number in (region.start, region.nr_pages, region.offset)
    ]
    pidfd = os.pidfd_open(restored.victim.pid)
    fds = restored.fd, pidfd, restored.file
    command = [sys.executable, "-c", TOOL, str(server.path), str(nr_steps), *map(str, fds)]
    tool = subprocess.Popen([*command, *numbers], stdout=subprocess.PIPE, pass_fds=fds)
    os.close(pidfd)
    assert tool.stdout is not None
    with tool.stdout:
        assert tool.stdout.read(1) == b"!"
    return tool


@pytest.mark.parametrize("nr_steps", range(4))
def test_client_that_is_killed(stage: Stage, nr_steps: int) -> None:
    """Its processes get their pages, or are given up with a word; and nothing of it stays."""
    server, restored = stage.server(times=LONG_GRACE), stage.restored()
    before = server.fds()
    tool = start_tool(server, restored, nr_steps)
    tool.kill()
    tool.wait(DEADLINE_S)
    if nr_steps:
        restored.check()
    restored.close()
    restored.victim.kill()
    server.wait_for_log("restore 1 (tool): ended")
    server.wait_for_fds(before)
    finished = nr_steps >= 2
    assert server.errors == ([] if finished else [f"restore 1 (tool): {LEFT_EARLY}"])


def test_thousand_connections(stage: Stage) -> None:
    """Of a user's flood no more than twice as many connections are kept as there may be, so that
    some are told why; neither who is being served nor who comes afterwards is any worse off."""
    config = stage.directory / "lazypagesd.toml"
    config.write_text(f"[limits]\nconnections_per_user = {NR_ALLOWED}\n")
    server, restored = stage.server("--config", str(config)), stage.restored()
    before, nr_sockets = server.fds(), server.nr_sockets()
    served = handed_over(server, restored)
    restored.check(38, 30)
    nr_heard = 2 * NR_ALLOWED - 1
    with ExitStack() as clients:
        flood = [Client(server.path) for _ in range(NR_CONNECTIONS)]
        for client in flood:
            clients.callback(client.close)
        nr_hung_up = NR_CONNECTIONS - nr_heard
        wait_until(lambda: len(server.errors) == nr_hung_up, lambda: f"{nr_hung_up} hung up on")
        assert server.nr_sockets() == nr_sockets + 2 * NR_ALLOWED
        restored.check(60, 50)
        [reason] = flood[0].refused(opening())
        assert reason.endswith("or raise connections_per_user")
    served.do(FINISHED)
    assert served.do(RELEASE).state.ended
    restored.check()
    served.close()
    server.wait_for_fds(before)
    serve_another(stage, server)


def test_answers_that_are_never_read(stage: Stage) -> None:
    """A client that sends a whole hand-off, and further requests until the daemon takes no more,
    is served, and so is another one."""
    server, restored = stage.server(times=OFTEN), stage.restored()
    before = server.fds()
    client = server.client()
    client.send(opening())
    client.send(session(regions_of(restored.image)), restored.fd, restored.file)
    client.send(FINISHED)
    for _ in range(NR_CONNECTIONS):
        client.send(PROGRESS)
    serve_another(stage, server)
    restored.check()
    client.close()
    server.wait_for_fds(before)
