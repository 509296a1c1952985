"""The client for asyncio, against a daemon that runs, and against a socket that nobody serves."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path

import pytest

from lazypagesd.client import Pace, Refused, Region
from lazypagesd.client.aio import Restore
from lazypagesd.client.messages import REGIONS_MAX
from tests.client.test_restore import regions
from tests.service.daemon import DEADLINE_S, NO_GRACE
from tests.service.restorer import write_checkpoint
from tests.service.serving import PAGE_SIZE
from tests.service.stage import BASE, Restored, Stage, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd


def run(steps: Coroutine[object, object, None]) -> None:
    """Carry out the steps of a test, unless they hang."""
    asyncio.run(asyncio.wait_for(steps, 2 * DEADLINE_S))


async def at_its_wait(task: asyncio.Task[object]) -> None:
    """Return when *task*, which has been made a moment ago, waits for an answer."""
    await asyncio.sleep(0)
    assert not task.done()


async def hand_over(restore: Restore, restored: Restored) -> None:
    """Hand a process over, and keep no userfaultfd."""
    await restore.add_session(restored.fd, regions=regions(restored), files=[restored.file])
    restored.close()


def test_restore_is_handed_over(stage: Stage) -> None:
    """A process is filled, and the loop has time for others while the daemon is waited for."""
    server, restored = stage.server(), stage.restored()
    before = server.fds()

    async def steps() -> None:
        async with await Restore.open("web", server.path, pace=Pace.LAZY) as restore:
            assert restore.name == "restore 1 (web)"
            await hand_over(restore, restored)
            await asyncio.to_thread(restored.check, 30, 40)
            await restore.finished()
            async with asyncio.TaskGroup() as group:
                release = group.create_task(restore.release())
                await at_its_wait(release)
                async with await Restore.attach(restore.id, server.path) as visit:
                    progress = await visit.progress()
                    assert (progress.nr_live, progress.nr_pages) == (1, 141)
                    await visit.set_pace(Pace.EAGER)
            assert release.result().ended

    run(steps())
    restored.check()
    server.wait_for_fds(before)


def test_two_restores_at_once(stage: Stage) -> None:
    """One task each, one loop, one daemon: every page of both is right."""
    server, both = stage.server(), [stage.restored(), stage.restored()]

    async def restore_one(restored: Restored) -> None:
        async with await Restore.open("", server.path) as restore:
            await hand_over(restore, restored)
            await restore.finished()
            assert (await restore.release()).ended

    async def steps() -> None:
        async with asyncio.TaskGroup() as group:
            for restored in both:
                group.create_task(restore_one(restored))

    run(steps())
    for restored in both:
        restored.check()


def test_requests_take_turns(stage: Stage) -> None:
    """Of requests at once each gets its own answer, and none goes between a list's pieces."""
    server, restored = stage.server(times=NO_GRACE), stage.restored()
    many = 3 * REGIONS_MAX

    async def steps() -> None:
        async with (
            await Restore.open("", server.path) as restore,
            asyncio.TaskGroup() as group,
        ):
            before = group.create_task(restore.progress())
            adding = group.create_task(
                restore.add_session(
                    restored.fd,
                    regions=(Region(BASE + 2 * i * PAGE_SIZE, 1, 0) for i in range(many)),
                    files=[restored.file],
                )
            )
            after = group.create_task(restore.progress())
            await adding
            assert [(await task).nr_pages for task in (before, after)] == [0, many]

    run(steps())


def test_refusal_has_the_reasons(stage: Stage) -> None:
    """What the daemon refuses is raised, reason by reason, and the connection is closed."""
    server, restored = stage.server(), stage.restored()

    async def steps() -> None:
        restore = await Restore.open("", server.path)
        two = [Region(BASE, 10_000, 0), Region(BASE + 1, 1, 0)]
        with pytest.raises(Refused) as caught:
            await restore.add_session(restored.fd, regions=two, files=[restored.file])
        assert len(caught.value.reasons) == 2
        with pytest.raises(ConnectionError, match=r"restore 1: the connection is closed"):
            await restore.finished()

    run(steps())


def test_cancelled_request_closes_the_connection(stage: Stage) -> None:
    """Nobody takes a later answer for the one that was given up; others in the queue fail."""
    server, restored = stage.server(), stage.restored()
    before = server.fds()

    async def steps() -> None:
        restore = await Restore.open("", server.path, pace=Pace.LAZY)
        await hand_over(restore, restored)
        await restore.finished()
        release = asyncio.create_task(restore.release())
        await at_its_wait(release)
        progress = asyncio.create_task(restore.progress())
        await at_its_wait(progress)
        release.cancel()
        with pytest.raises(ConnectionError, match="the connection is closed"):
            await progress
        assert release.cancelled()
        # As it had finished, it goes on.
        async with await Restore.attach(restore.id, server.path) as visit:
            await visit.set_pace(Pace.EAGER)
            await visit.release()

    run(steps())
    restored.check()
    server.wait_for_fds(before)


def test_cancelled_turn_costs_nothing(stage: Stage) -> None:
    """A request that is given up before its turn has not been sent, and the others go on."""
    server, restored = stage.server(), stage.restored()

    async def steps() -> None:
        async with await Restore.open("", server.path) as restore:
            # Or it might answer before anybody has had time to wait.
            server.process.send_signal(signal.SIGSTOP)
            adding = asyncio.create_task(hand_over(restore, restored))
            await at_its_wait(adding)
            abort = asyncio.create_task(restore.abort())
            await at_its_wait(abort)
            abort.cancel()
            server.process.send_signal(signal.SIGCONT)
            await adding
            await restore.finished()
            assert (await restore.release()).ended

    run(steps())
    restored.check()


def test_close_ends_a_request_that_waits(stage: Stage) -> None:
    """Who waits while another task closes the connection waits no more."""
    server = stage.server(times=NO_GRACE)
    before = server.fds()
    restored = stage.restored()

    async def steps() -> None:
        restore = await Restore.open("", server.path, pace=Pace.LAZY)
        await hand_over(restore, restored)
        await restore.finished()
        release = asyncio.create_task(restore.release())
        await at_its_wait(release)
        restore.close()
        with pytest.raises(ConnectionError, match="the connection is closed"):
            await release
        async with await Restore.attach(restore.id, server.path) as visit:
            await visit.set_pace(Pace.EAGER)
            await visit.release()

    run(steps())
    server.wait_for_fds(before)


def test_abort_is_the_end(stage: Stage) -> None:
    """After abort() the daemon has hung up."""
    server = stage.server()

    async def steps() -> None:
        async with await Restore.open("", server.path) as restore:
            await restore.abort()
            with pytest.raises(OSError):
                await restore.progress()

    run(steps())


def test_criu_may_come(stage: Stage) -> None:
    """Who connects to a socket that was handed over has come to the daemon."""
    server = stage.server(times=NO_GRACE)
    images = stage.directory / "images"
    write_checkpoint(images, {7: 4}, set())

    async def steps() -> None:
        images_fd = os.open(images, os.O_RDONLY)
        async with await Restore.open("criu", server.path, images_fd=images_fd) as restore:
            os.close(images_fd)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(os.fspath(images / "lazy-pages.socket"))
                listener.listen(1)
                await restore.serve_criu(listener.fileno())

    run(steps())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as criu:
        criu.connect(os.fspath(images / "lazy-pages.socket"))
    server.wait_for_log("restore 1 (criu): hand-off: the restore closed")


def test_nobody_listens(tmp_path: Path) -> None:
    """Without a daemon the error names the socket."""

    async def steps() -> None:
        with pytest.raises(FileNotFoundError) as caught:
            await Restore.open("", tmp_path / "handoff.socket")
        assert caught.value.filename == str(tmp_path / "handoff.socket")

    run(steps())


def test_connection_that_nobody_waits_for_is_closed(tmp_path: Path) -> None:
    """An open() that is cancelled while the daemon's queue is full leaves nothing behind."""
    path = tmp_path / "handoff.socket"

    async def steps(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        opening = asyncio.create_task(Restore.open("", path))
        await at_its_wait(opening)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        listener.accept()[0].close()
        connection, _ = await loop.sock_accept(listener)
        with connection:
            assert await loop.sock_recv(connection, 1) == b""

    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first,
    ):
        listener.bind(os.fspath(path))
        listener.listen(0)
        listener.setblocking(False)
        first.connect(os.fspath(path))
        run(steps(listener))
