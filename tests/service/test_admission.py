"""Who is served by ``lazypagesd serve``, how much of it each gets, and whom they reach."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

import pytest

from lazypagesd.proto import handoff_pb2 as pb
from tests.service.daemon import NO_GRACE
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
from tests.service.stage import BASE, Stage, handed_over, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd

SOMEBODY = 65534
LAZY = pb.Pace(kind=pb.Pace.LAZY)
EAGER = pb.Pace(kind=pb.Pace.EAGER)


def attach(number: int) -> pb.Request:
    """Return what reaches restore *number*."""
    return pb.Request(attach=pb.Attach(id=number))


def setting(pace: pb.Pace) -> pb.Request:
    """Return what sets *pace*."""
    return pb.Request(set_pace=pb.SetPace(pace=pace))


@contextlib.contextmanager
def user(uid: int, groups: list[int]) -> Iterator[None]:
    """Be somebody else for a while."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        os.setgroups(before)


def client_of(server: Server, uid: int, *groups: int) -> Client:
    """Connect as another user, whom the socket's mode lets in."""
    server.path.chmod(0o666)
    # How many of them pytest has made for itself alone depends on how it is run.
    for directory in (server.directory, *server.directory.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(0o755)
    with user(uid, list(groups)):
        return server.client()


def limited(stage: Stage, limits: str) -> Server:
    """Return a daemon with *limits*."""
    config = stage.directory / "lazypagesd.toml"
    config.write_text(f"[limits]\n{limits}\n")
    return stage.server("--config", str(config), times=NO_GRACE)


def test_limits_are_those_of_the_configuration(stage: Stage) -> None:
    """What is beyond a limit is refused, and says which."""
    config = stage.directory / "lazypagesd.toml"
    config.write_text("[limits]\nrestores = 1\nsessions = 1\nregions = 3\n")
    server, restored = stage.server("--config", str(config), times=NO_GRACE), stage.restored()
    client = handed_over(server, restored)
    further = server.client()
    assert further.refused(opening()) == ["1 restores are being served: wait, or raise restores"]
    reasons = client.refused(session([pb.Region(start=BASE, nr_pages=1)]), restored.fd)
    assert reasons == [
        "a restore has at most 1 sessions here",
        "a restore has at most 3 regions here",
    ]


def test_connections_of_a_user_are_limited(stage: Stage) -> None:
    """A user may have so many connections, visits included, and again when one has ended."""
    config = stage.directory / "lazypagesd.toml"
    config.write_text("[limits]\nconnections_per_user = 1\n")
    server = stage.server("--config", str(config))
    before = server.fds()
    first = server.client()
    first.do(opening())
    with_first = server.fds()
    for request in (opening(), attach(1)):
        [reason] = server.client().refused(request)
        assert reason.endswith("has 1 connections: close some, or raise connections_per_user")
        server.wait_for_fds(with_first)
    first.close()
    server.wait_for_fds(before)
    server.client().do(opening())


def test_memory_of_a_user_is_limited(stage: Stage) -> None:
    """What a user's restores keep in memory is bounded, and free again when they have ended."""
    server = limited(stage, "memory_per_user = 1")
    half = session([pb.Region(start=BASE, nr_pages=1 << 22)])
    with (stage.directory / "sparse").open("w+b") as file:
        file.truncate((1 << 22) * PAGE_SIZE)
        clients = [server.client() for _ in range(3)]
        for client in clients:
            client.do(opening())
        clients[0].do(half, stage.restored().fd, file.fileno())
        [reason] = clients[1].refused(half, stage.restored().fd, file.fileno())
        assert reason.startswith("user 0 has 0.6 MiB of state, and this needs 0.6 MiB more: wait")
        clients[0].close()
        server.wait_for_log("restore 1: ended")
        clients[2].do(half, stage.restored().fd, file.fileno())


@pytest.mark.root
def test_users_reach_their_own_restores(stage: Stage) -> None:
    """Another user may restore where the socket lets them connect, and sees nobody else's."""
    server, restored = stage.server(), stage.restored()
    handed_over(server, restored)
    theirs = client_of(server, SOMEBODY)
    assert theirs.do(opening()).id == 2
    refusal = ["attach: no restore 1 is being served for you"]
    assert client_of(server, SOMEBODY).refused(attach(1)) == refusal
    assert client_of(server, SOMEBODY).do(attach(2)).restore == "restore 2"


@pytest.mark.root
def test_root_and_the_group_reach_all(stage: Stage) -> None:
    """Whoever is in the daemon's group may look after every restore, as root may."""
    config = stage.directory / "lazypagesd.toml"
    config.write_text('group = "disk"\n')
    server, restored = stage.server("--config", str(config)), stage.restored()
    gid = server.path.stat().st_gid
    assert server.path.stat().st_mode & 0o777 == 0o660
    handed_over(server, restored)
    assert client_of(server, SOMEBODY, gid).do(attach(1)).restore == "restore 1"
    client_of(server, SOMEBODY).do(opening())
    assert server.client().do(attach(2)).restore == "restore 2"


def test_pace_is_set_by_a_visitor(stage: Stage) -> None:
    """A lazy restore stays as it is until somebody sets another pace, from a connection of its
    own, where one may wait for the end as well."""
    server, restored = stage.server(), stage.restored()
    client = server.client()
    client.do(opening(pace=LAZY))
    client.do(session(regions_of(restored.image)), restored.fd, restored.file)
    client.do(FINISHED)
    client.close()
    visitor = server.client()
    visitor.do(attach(1))
    restored.check(60, 1)
    assert visitor.do(PROGRESS).state.nr_missing == 140
    visitor.do(setting(EAGER))
    assert visitor.do(RELEASE).state.ended
    restored.check()
    assert server.client().refused(attach(1)) == ["attach: no restore 1 is being served for you"]


def test_visitor_leaves_nothing(stage: Stage) -> None:
    """Who leaves, or is refused, ends nothing but the visit."""
    server, restored = stage.server(times=NO_GRACE), stage.restored()
    client = handed_over(server, restored)
    before = server.fds()
    visitor = server.client()
    visitor.do(attach(1))
    assert visitor.refused(FINISHED) == ["finished: too late, the hand-off is over"]
    leaver = server.client()
    leaver.do(attach(1))
    leaver.close()
    server.wait_for_fds(before)
    client.do(FINISHED)
    client.do(RELEASE)
    restored.check()


@pytest.mark.parametrize(
    ("pace", "reason"),
    [
        (pb.Pace(kind=pb.Pace.PACED), "pace: PACED has a rate from 1 to 1125899906842624, not 0"),
        (pb.Pace(rate=7), "pace: EAGER has a rate from 0 to 0, not 7"),
        (pb.Pace(kind=7), "pace: kind 7 is not known: speak version 1"),  # type: ignore[arg-type]
    ],
)
def test_wrong_pace_is_refused(stage: Stage, pace: pb.Pace, reason: str) -> None:
    """A pace that is none ends the restore before there is one, or the visit."""
    server = stage.server()
    assert server.client().refused(opening(pace=pace)) == [reason]
    client = server.client()
    client.do(opening())
    assert client.refused(setting(pace)) == [reason]


def test_descriptor_is_served_once(stage: Stage) -> None:
    """A userfaultfd that is handed over twice would have its messages read by two."""
    server, restored = stage.server(times=NO_GRACE), stage.restored()
    client = handed_over(server, restored)
    twice = server.client()
    twice.do(opening())
    [reason] = twice.refused(session(), restored.fd)
    assert reason == (
        "restore 2/0: its descriptor is served already, as restore 1/0: open another"
    )
    client.do(FINISHED)
    client.do(RELEASE)
    restored.check()
