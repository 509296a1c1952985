"""Clients that lie, flood, or stop in the middle: each harms its own restore at most."""

from __future__ import annotations

import pytest

from lazypagesd.proto import handoff_pb2 as pb
from tests.service.daemon import wait_until
from tests.service.serving import (
    FINISHED,
    RELEASE,
    Client,
    Server,
    opening,
    regions_of,
    session,
)
from tests.service.test_serve import BASE, NO_GRACE, Restored, Stage, handed_over, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd

LONG_GRACE = {"lazypagesd.service.restores.FAILED_GRACE_S": 60.0}
NO_PATIENCE = {"lazypagesd.service.native_handoff.LIST_TIMEOUT_S": 0.1}
LEFT_EARLY = "hand-off: the client closed the connection before it had finished"


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
