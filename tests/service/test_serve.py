"""``lazypagesd serve``: real processes, handed over by a client that has only the description."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lazypagesd.proto import handoff_pb2 as pb
from lazypagesd.sources.testing import Delayed
from tests.service.daemon import DEADLINE_S, LONG_GRACE, NO_GRACE, wait_until
from tests.service.restorer import write_checkpoint
from tests.service.serving import (
    ABORT,
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
from tests.support.image import Image, wrong_pages
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd


def test_process_is_filled(stage: Stage) -> None:
    """Every page is right, before the restore has finished and after it, and nothing stays."""
    server, restored = stage.server(), stage.restored()
    before = server.fds()
    client = server.client()
    assert client.do(opening(name="web")).restore == "restore 1 (web)"
    client.do(session(regions_of(restored.image)), restored.fd, restored.file)
    restored.check(38, 30)
    state = client.do(PROGRESS).state
    assert (state.ended, state.nr_sessions, state.nr_live, state.nr_pages) == (False, 1, 1, 141)
    assert 0 < state.nr_missing <= 141 - 11
    client.do(FINISHED)
    state = client.do(RELEASE).state
    assert (state.ended, state.nr_live, state.nr_missing) == (True, 0, 0)
    restored.check()
    client.close()
    server.wait_for_fds(before)
    assert "process restore 1 (web)/0: drained" in server.log


def test_faults_wait_for_a_list_that_goes_on(stage: Stage) -> None:
    """A page that is touched before the list is complete is filled when it is, from its file."""
    server, restored = stage.server(), stage.restored()
    client = server.client()
    client.do(opening())
    first, *rest = regions_of(restored.image)
    client.do(session([first], more=True), restored.fd, restored.file)
    restored.victim.begin_reading(BASE + 60 * PAGE_SIZE)
    wait_until(lambda: restored.nr_waiting() == 1, lambda: "a thread at a page")
    client.do(pb.Request(add_regions=pb.AddRegions(regions=rest[:1], more=True)))
    client.do(PROGRESS)
    assert restored.nr_waiting() == 1
    client.do(pb.Request(add_regions=pb.AddRegions(regions=rest[1:])))
    restored.close()
    seen = asyncio.run(restored.victim.end_reading())
    assert seen == restored.image.bytes(BASE + 60 * PAGE_SIZE, 1)
    client.do(FINISHED)
    client.do(RELEASE)
    restored.check()


def test_files_that_nobody_answers_for_hold_up_nobody_else(stage: Stage) -> None:
    """Looking at a file may wait for ever for who serves it, and does so by itself."""
    server, restored = stage.server(), stage.restored()
    with contextlib.closing(Delayed(bytes(PAGE_SIZE))) as source:
        source.hold_attributes()
        # More of them than asyncio has threads for.
        for _ in range(36):
            client = server.client()
            client.do(opening())
            client.send(session(regions_of(restored.image)[:1]), source.fd, source.fd)
        client = handed_over(server, restored)
        client.do(FINISHED)
        client.do(RELEASE)
        restored.check()


def test_process_without_a_file_is_zero(stage: Stage) -> None:
    """A session without regions reads zeros."""
    server, restored = stage.server(), stage.restored()
    client = server.client()
    client.do(opening())
    client.do(session(), restored.fd)
    seen = asyncio.run(restored.victim.read(BASE, 3))
    assert wrong_pages(seen, bytes(3 * PAGE_SIZE)) == []
    client.do(FINISHED)
    assert client.do(RELEASE).state.ended


def test_end_of_a_process_ends_its_session(stage: Stage) -> None:
    """A process that dies needs nothing any more, which its pidfd tells."""
    server, restored = stage.server(), stage.restored()
    client = server.client()
    client.do(opening())
    pidfd = os.pidfd_open(restored.victim.pid)
    with os.fdopen(pidfd, closefd=True):
        request = session(regions_of(restored.image), pidfd=True)
        client.do(request, restored.fd, pidfd, restored.file)
    restored.victim.kill()
    server.wait_for_log("/0: gone")


@pytest.mark.parametrize("nr_requests", range(5))
def test_client_that_leaves_before_it_has_finished(stage: Stage, nr_requests: int) -> None:
    """Its restore fails, wherever it was, and nothing of it stays; what lived on is told of."""
    server, restored = stage.server(times=NO_GRACE), stage.restored()
    before = server.fds()
    client = server.client()
    regions = regions_of(restored.image)
    requests: list[Callable[[], object]] = [
        lambda: client.do(opening()),
        lambda: client.do(session(regions[:1], more=True), restored.fd, restored.file),
        lambda: client.do(pb.Request(add_regions=pb.AddRegions(regions=regions[1:2], more=True))),
        lambda: client.do(pb.Request(add_regions=pb.AddRegions(regions=regions[2:]))),
    ]
    for request in requests[:nr_requests]:
        request()
    client.close()
    server.wait_for_log("hand-off: the client closed the connection before it had finished")
    if nr_requests:
        server.wait_for_log("restore 1: ended")
    server.wait_for_fds(before)
    assert ("141 pages are lost" in server.log) == (nr_requests == 4)
    assert server.process.poll() is None


def test_client_that_fails_is_outlasted(stage: Stage) -> None:
    """The faults of a restore that has failed are still answered, from the file."""
    server, restored = stage.server(times=LONG_GRACE), stage.restored()
    handed_over(server, restored).close()
    server.wait_for_log("before it had finished")
    restored.check()


def test_client_that_leaves_after_it_has_finished(stage: Stage) -> None:
    """Its restore goes on to the end, also if it has not waited for the answer."""
    server, restored = stage.server(), stage.restored()
    before = server.fds()
    client = handed_over(server, restored)
    client.send(FINISHED)
    client.close()
    server.wait_for_log("/0: drained")
    server.wait_for_fds(before)
    restored.check()


def test_abort_fails_the_restore(stage: Stage) -> None:
    """A client that gives up is answered, and its restore has failed."""
    server, restored = stage.server(times=NO_GRACE), stage.restored()
    client = handed_over(server, restored)
    client.do(ABORT)
    assert client.socket.recv(1) == b""
    server.wait_for_log("the client gave the restore up")
    server.wait_for_log("restore 1: ended")


def test_restores_fail_alone(stage: Stage) -> None:
    """Of two clients at once, the one that breaks the protocol harms nothing of the other."""
    server, one, other = stage.server(times=NO_GRACE), stage.restored(), stage.restored()
    good, bad = handed_over(server, one), handed_over(server, other)
    bad.socket.send(b"\xff")
    [reason] = bad.answer().refused
    assert reason == "the packet is no Request (ff)"
    one.check(60, 50)
    good.do(FINISHED)
    assert good.do(RELEASE).state.ended
    one.check()


def test_refusal_after_the_end_loses_nothing(stage: Stage) -> None:
    """What is refused after `finished` ends the connection, and not the restore."""
    server, restored = stage.server(times=NO_GRACE), stage.restored()
    client = handed_over(server, restored)
    client.do(FINISHED)
    assert client.refused(ABORT) == ["abort: too late, the hand-off is over"]
    server.wait_for_log("/0: drained")
    restored.check()


def test_client_that_reads_no_answer_harms_nobody(stage: Stage) -> None:
    """One that floods, and never reads, is served as others are."""
    server, restored = stage.server(), stage.restored()
    flood = server.client()
    flood.do(opening())
    flood.socket.settimeout(0.2)
    with contextlib.suppress(TimeoutError):  # the daemon may as well read them all
        for _ in range(20_000):
            flood.send(PROGRESS)
    client = handed_over(server, restored)
    client.do(FINISHED)
    client.do(RELEASE)
    restored.check()


def test_signal_fills_what_has_finished(stage: Stage) -> None:
    """SIGTERM ends the daemon with 0 when all that had finished is filled; other restores fail."""
    server, one, other = stage.server(times=NO_GRACE), stage.restored(), stage.restored()
    finished, unfinished = handed_over(server, one), handed_over(server, other)
    os.truncate(one.image.path, 0)
    finished.do(FINISHED)
    server.wait_for_log("cannot be filled ahead")
    server.terminate()
    assert unfinished.socket.recv(1) == b""
    server.wait_for_log("restore 2: ended before it was complete, and so it fails")
    assert server.process.poll() is None
    Image(one.image.path, [(part.start, part.nr_pages) for part in one.image.parts])
    one.check()
    assert server.wait() == 0
    assert not server.path.exists()


def test_signal_without_restores(stage: Stage) -> None:
    """SIGTERM ends an idle daemon with 0, and removes its socket."""
    server = stage.server()
    assert server.path.stat().st_mode & 0o777 == 0o660
    server.terminate()
    assert server.wait() == 0
    assert not server.path.exists()


def test_signal_ends_clients_that_linger(stage: Stage) -> None:
    """A client that stays connected after its restore has ended does not keep the daemon."""
    server, restored = stage.server(), stage.restored()
    client = handed_over(server, restored)
    client.do(FINISHED)
    client.do(RELEASE)
    server.terminate()
    assert server.wait() == 0


def reason_against(directory: Path) -> str:
    """Return why no daemon begins with a runtime directory."""
    command = [sys.executable, "-m", "lazypagesd", "serve", "--runtime-dir", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 1
    return done.stderr.removeprefix("Error: ")


def test_second_daemon_leaves_the_first_alone(stage: Stage) -> None:
    """A socket at which somebody listens is not taken away; one that was left is."""
    server = stage.server()
    reason = reason_against(stage.directory)
    assert reason.startswith(f"{server.path}: another daemon listens there")
    server.client().do(opening())
    server.process.send_signal(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    stage.server().client().do(opening())


def test_runtime_directory_is_made(stage: Stage) -> None:
    """Whoever starts the daemon by hand need not make its directory."""
    directory = stage.directory / "run"
    stage.server("--runtime-dir", str(directory))
    Client(directory / "handoff.socket").close()
    assert directory.stat().st_mode & 0o777 == 0o755


def test_runtime_directory_may_be_too_long(stage: Stage) -> None:
    """Where a socket cannot be, nothing is made, and the path is named."""
    directory = stage.directory / ("d" * 108)
    reason = reason_against(directory)
    assert reason.startswith(f"{directory}/handoff.socket: too long for a socket (over 107 bytes)")
    assert not directory.exists()


def test_socket_of_systemd_is_taken_over(stage: Stage) -> None:
    """A socket that was passed is accepted at, and still listens when the daemon has ended."""
    path = stage.directory / "passed"
    script = 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=handoff exec "$@" 3<&0 0</dev/null'
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        command = ["sh", "-c", script, "sh", sys.executable, "-m", "lazypagesd", "serve"]
        daemon = subprocess.Popen(command, stdin=listener.fileno())
        try:
            client = Client(path)
            client.do(opening())
            client.close()
            daemon.terminate()
            assert daemon.wait(DEADLINE_S) == 0
        finally:
            daemon.kill()
            daemon.wait()
        Client(path).close()


def await_criu(directory: Path, server: Server) -> None:
    """Let the daemon wait for a restore by CRIU, at a socket of which nobody else has a copy."""
    write_checkpoint(directory / "images", {7: 4}, set())
    images_fd = os.open(directory / "images", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(directory / "lazy-pages.socket"))
        listener.listen()
        client = server.client()
        client.do(opening(images=True), images_fd)
        client.do(pb.Request(serve_criu=pb.ServeCriu()), listener.fileno())
    os.close(images_fd)


def test_signal_ends_the_wait_for_criu(stage: Stage) -> None:
    """A daemon that waits for a restore by CRIU to connect ends when it is told to."""
    server = stage.server()
    await_criu(stage.directory, server)
    server.terminate()
    assert server.wait() == 0
    assert "restore 1: ended before it was complete, and so it fails" in server.log


def test_wait_for_criu_is_bounded(stage: Stage) -> None:
    """A restore by CRIU that never connects fails, and its images are closed."""
    config = stage.directory / "lazypagesd.toml"
    config.write_text("[limits]\ncriu_wait_s = 1\n")
    server = stage.server("--config", str(config))
    before = server.fds()
    await_criu(stage.directory, server)
    server.wait_for_log("hand-off: no criu restore came within 1 s")
    server.wait_for_fds(before)
