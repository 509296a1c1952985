"""Channels through ``lazypagesd serve``: processes that may have no userfaultfd, every byte."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from lazypagesd.kernel.channel import UNKNOWN, Api, request
from lazypagesd.proto import handoff_pb2 as pb
from tests.kernel.test_channel import V1_ANSWER, V2_ANSWER
from tests.service.channelled import ChannelStage, at, channels
from tests.service.daemon import NO_GRACE, wait_until
from tests.service.restorer import page_addr, page_bytes, write_checkpoint
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
from tests.service.stage import handed_over
from tests.support.image import wrong_pages
from tests.support.victim import confine, victim_program

__all__ = ["channels", "confine", "victim_program"]

pytestmark = pytest.mark.uffd

# An answer that does not come is not waited for so long.
IMPATIENT = {"lazypagesd.handoff.channel.ANSWER_TIMEOUT_S": 0.3}
# An answer that does not come is waited for until the test has ended.
PATIENT = {"lazypagesd.handoff.channel.ANSWER_TIMEOUT_S": 600.0}
NEVER = {"never_forks": True, "never_changes_mappings": True}


def opened(server: Server) -> Client:
    """Return a client that has opened a restore."""
    client = server.client()
    client.do(opening())
    return client


def finish(client: Client) -> None:
    """Let everything be filled, and wait for that."""
    client.do(FINISHED)
    state = client.do(RELEASE).state
    assert (state.ended, state.nr_live, state.nr_missing) == (True, 0, 0)


@pytest.mark.parametrize("api", list(Api))
def test_process_is_filled(channels: ChannelStage, api: Api) -> None:
    """Every page is right, before the restore has finished and after it, and nothing stays."""
    server, process = channels.server(), channels.channelled()
    before = server.fds()
    client = opened(server)
    process.hand_over(client, api=api, **(NEVER if api is Api.V1 else {}))
    process.check(38, 30)
    state = client.do(PROGRESS).state
    assert (state.ended, state.nr_sessions, state.nr_live, state.nr_pages) == (False, 1, 1, 141)
    finish(client)
    process.check()
    client.close()
    server.wait_for_fds(before)
    assert "/0: drained" in server.log


@pytest.mark.parametrize("api", list(Api))
def test_threads_all_read_right(channels: ChannelStage, api: Api) -> None:
    """Many threads that fault at once, at pages of their own and of others, while the rest is
    filled, read every byte right."""
    server, process = channels.server(), channels.channelled()
    client = opened(server)
    process.hand_over(client, api=api, **NEVER)
    process.victim.begin_reading(at(0), 20, nr_threads=60, step_pages=3)
    client.do(FINISHED)
    expected = b"".join(process.image.bytes(at(3 * i), 20) for i in range(60))
    assert wrong_pages(asyncio.run(process.victim.end_reading()), expected) == []
    client.do(RELEASE)
    process.check()


def test_children_are_filled(channels: ChannelStage) -> None:
    """A child, and a child of that, have sessions of their own, and what each has written."""
    server, process = channels.server(), channels.channelled()
    before = server.fds()
    client = opened(server)
    process.hand_over(client)
    process.check(0, 5)
    child = process.fork()
    asyncio.run(child.victim.write(at(100), 0x11))
    grandchild = child.fork()
    asyncio.run(process.victim.write(at(100), 0x22))
    finish(client)
    assert client.do(PROGRESS).state.nr_sessions == 3
    for member, byte in (process, 0x22), (child, 0x11), (grandchild, 0x11):
        member.check(0, 100)
        assert member.read(100) == bytes([byte]) * PAGE_SIZE
        member.check(101, 99)
    client.close()
    server.wait_for_fds(before)


def test_what_changes_is_what_it_should_be(channels: ChannelStage) -> None:
    """What is discarded, unmapped or moved, there or missing, is right where it is then."""
    server, process = channels.server(), channels.channelled()
    client = opened(server)
    process.hand_over(client)
    process.change()
    finish(client)
    process.check_changed()


def test_process_of_an_image_is_filled(channels: ChannelStage) -> None:
    """A channel may be of a process of the images, and come with a pidfd, as a userfaultfd may."""
    server, process = channels.server(), channels.channelled()
    write_checkpoint(channels.directory / "images", {7: 4}, set())
    images_fd = os.open(channels.directory / "images", os.O_RDONLY)
    client = server.client()
    client.do(opening(images=True), images_fd)
    os.close(images_fd)
    process.begin_to_open()
    with os.fdopen(os.pidfd_open(process.victim.pid)) as pidfd:
        client.do(session(channel=True, image_pid=7, pidfd=True), process.fd, pidfd.fileno())
    process.opened(page_addr(7, 0), 6)
    seen = asyncio.run(process.victim.read(page_addr(7, 0), 6))
    expected = b"".join(page_bytes(7, index) for index in range(4)) + bytes(2 * PAGE_SIZE)
    assert wrong_pages(seen, expected) == []
    process.victim.kill()
    server.wait_for_log("/0: gone")


def test_list_that_goes_on_comes_before_the_exchange(channels: ChannelStage) -> None:
    """A process is asked when the list of its regions is complete, and not before."""
    server = channels.server(times=IMPATIENT)
    process = channels.channelled()
    client = opened(server)
    first, *rest = regions_of(process.image)
    client.do(session([first], more=True, channel=True), process.fd, process.file)
    client.do(PROGRESS)
    process.begin_to_open()
    client.do(pb.Request(add_regions=pb.AddRegions(regions=rest)))
    process.opened()
    finish(client)
    process.check()


def test_restore_may_have_both(channels: ChannelStage) -> None:
    """A restore with a userfaultfd and with channels of both kinds fills all of them."""
    server, plain = channels.server(), channels.restored()
    client = handed_over(server, plain)
    processes = [channels.channelled() for _ in Api]
    for process, api in zip(processes, Api, strict=True):
        process.hand_over(client, api=api, **NEVER)
    plain.close()
    finish(client)
    plain.check()
    for process in processes:
        process.check()


def test_child_without_a_session_never_reads_zeros(channels: ChannelStage) -> None:
    """A process that said that it never forks, and does, has a child that dies instead."""
    server, process = channels.server(), channels.channelled()
    client = opened(server)
    process.hand_over(client, api=Api.V1, **NEVER)
    child = process.fork()
    with pytest.raises(EOFError):
        child.read(0)
    finish(client)
    process.check()


def test_failed_restore_never_shows_zeros(channels: ChannelStage) -> None:
    """A process that outlives its restore, which has failed, dies where something is missing."""
    server, process = channels.server(times=NO_GRACE), channels.channelled()
    client = opened(server)
    process.hand_over(client)
    process.check(0, 16)
    client.close()
    server.wait_for_log("restore 1: ended")
    process.check(0, 16)
    with pytest.raises(EOFError):
        process.read(199)


# ---- what is refused ----

V2, V1 = V2_ANSWER.pack(), V1_ANSWER.pack()
REFUSALS = {
    "closed": ([], "api exchange: the process has closed the channel"),
    "garbage": ([b"?" * 31], "api exchange: 31 bytes instead of 32"),
    "neither": ([UNKNOWN.pack()] * 2, "api exchange: the process understands neither v2 nor v1"),
    "another api": ([V1], "api exchange: asked for 0xab, answered 0xaa"),
    "v1": ([UNKNOWN.pack(), V1], "V1 without FORK: say never_forks if the process never does"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_process_that_cannot_be_served_is_refused(channels: ChannelStage, what: str) -> None:
    """What a process answers, or that it is gone, is told to the client and written down, and
    nothing stays."""
    answers, reason = REFUSALS[what]
    server = channels.server(times=NO_GRACE)
    before = server.fds()
    theirs, ours = channels.pair()
    for answer in answers:
        theirs.send(answer)
    theirs.shutdown(socket.SHUT_WR)
    reasons = opened(server).refused(session(channel=True), ours.fileno())
    assert reasons[0] == f"the channel cannot be served: {reason}"
    server.wait_for_log(f"hand-off: refused: {reasons[0]}")
    server.wait_for_fds(before)


def test_process_that_dies_in_mid_exchange_is_refused(channels: ChannelStage) -> None:
    """A process that is killed while its answer is waited for is found out at once."""
    server, process = channels.server(times=PATIENT | NO_GRACE), channels.channelled()
    before = server.fds()
    client = opened(server)
    nr_sockets = server.nr_sockets()
    client.send(process.request(), process.fd, process.file)
    process.close()
    wait_until(lambda: server.nr_sockets() == nr_sockets + 1, lambda: "the channel taken over")
    process.victim.kill()
    assert client.answer().refused == [
        "the channel cannot be served: api exchange: the process has closed the channel"
    ]
    client.close()
    server.wait_for_fds(before)


def test_silent_processes_hold_up_nobody(channels: ChannelStage) -> None:
    """While more processes than the daemon has threads say nothing, another restore comes and
    goes; when their time is over they are refused, and nothing of them stays."""
    server = channels.server(times=PATIENT | NO_GRACE)
    before = server.fds()
    silent = []
    for _ in range(50):
        theirs, ours = channels.pair()
        silent.append((opened(server), theirs))
        silent[-1][0].send(session(channel=True), ours.fileno())
        assert theirs.recv(64) == request(Api.V2).pack()
    process = channels.channelled()
    client = opened(server)
    process.hand_over(client)
    finish(client)
    process.check()
    client.close()
    for other, theirs in silent:
        theirs.close()
        assert other.answer().refused
        other.close()
    server.wait_for_fds(before)


@pytest.mark.parametrize("answers", [[], [UNKNOWN.pack()]])
def test_answer_that_never_comes_is_not_waited_for(
    channels: ChannelStage, answers: list[bytes]
) -> None:
    """A process that says nothing, at first or to the second question, is refused in time."""
    server = channels.server(times=IMPATIENT | NO_GRACE)
    before = server.fds()
    theirs, ours = channels.pair()
    for answer in answers:
        theirs.send(answer)
    assert opened(server).refused(session(channel=True), ours.fileno()) == [
        "the channel cannot be served: no answer to the api exchange within 0.3 s"
    ]
    server.wait_for_fds(before)


def test_client_that_leaves_in_mid_exchange_fails(channels: ChannelStage) -> None:
    """Its restore ends, and nothing of it stays, when the process has answered after all."""
    server = channels.server(times=PATIENT | NO_GRACE)
    before = server.fds()
    theirs, ours = channels.pair()
    client = opened(server)
    client.send(session(channel=True), ours.fileno())
    ours.close()
    theirs.recv(64)
    client.close()
    theirs.send(V2)
    server.wait_for_log("the client closed the connection before it had finished")
    server.wait_for_fds(before)
    assert theirs.recv(64) == b""


def test_signal_ends_a_daemon_that_waits_for_an_answer(channels: ChannelStage) -> None:
    """SIGTERM waits no longer than for the answer."""
    server = channels.server(times=IMPATIENT | NO_GRACE)
    theirs, ours = channels.pair()
    opened(server).send(session(channel=True), ours.fileno())
    theirs.recv(64)
    server.terminate()
    assert server.wait() == 0


def test_channel_that_is_served_is_not_asked_again(channels: ChannelStage) -> None:
    """A channel that is handed over twice is refused before anything is read from it."""
    server, process = channels.server(times=NO_GRACE), channels.channelled()
    copy = os.dup(process.fd)
    client = opened(server)
    process.hand_over(client)
    [reason] = opened(server).refused(session(channel=True), copy)
    os.close(copy)
    assert "its descriptor is served already, as restore 1/0" in reason
    process.check(0, 50)
    finish(client)
    process.check()


def test_process_that_sends_anything_harms_itself_alone(channels: ChannelStage) -> None:
    """A process that floods its channel with what is no message, and takes nothing, keeps nobody
    from being served, and its session ends with it."""
    server, process = channels.server(), channels.channelled()
    theirs, ours = channels.pair()
    before = server.fds()
    theirs.send(V2)
    hostile = opened(server)
    hostile.do(session(channel=True), ours.fileno())
    ours.close()
    theirs.setblocking(False)
    try:
        for i in range(100_000):
            theirs.send(os.urandom(1 + i % 999))
    except BlockingIOError:
        pass
    client = opened(server)
    process.hand_over(client)
    process.check()
    finish(client)
    client.close()
    theirs.close()
    server.wait_for_log("restore 1/0: gone")
    hostile.close()
    server.wait_for_fds(before)


def test_every_child_is_waited_for(channels: ChannelStage) -> None:
    """A child that is forked while the rest is filled keeps the restore from being over."""
    server, process = channels.server(), channels.channelled()
    client = opened(server)
    process.hand_over(client)
    os.truncate(process.image.path, 0)
    client.do(FINISHED)
    child = process.fork()
    wait_until(lambda: client.do(PROGRESS).state.nr_sessions == 2, lambda: "two sessions")
    child.victim.kill()
    process.victim.kill()
    assert client.do(RELEASE).state.ended
