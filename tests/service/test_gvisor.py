"""Channels into gVisor, which has no userfaultfd: its process, and a daemon outside of it.

Some facts: gVisor answers userfaultfd(2) with ENOSYS, and has no /dev/userfaultfd.  Its processes
may connect to sockets of the host where runsc is told so, but no descriptor leaves or comes in: so
the process connects to where its restore tool listens, instead of being given an end of a pair,
and a child of it has no channel.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lazypagesd.kernel.channel import Api
from tests.service.channelled import ChannelStage, at
from tests.service.daemon import DEADLINE_S
from tests.service.serving import FINISHED, RELEASE, opening
from tests.support.image import wrong_pages
from tests.support.victim import Victim, victim_program

__all__ = ["victim_program"]

pytestmark = [pytest.mark.uffd, pytest.mark.root]


def command_for(directory: Path) -> list[str | Path]:
    """Return what runs a program in gVisor; skip where there is none."""
    runsc = shutil.which("runsc")
    if runsc is None:
        pytest.skip("no runsc (Debian has it in the package runsc)")
    options = ["-network=none", "-ignore-cgroups", "-host-uds=open"]
    return [runsc, "-root", directory / "runsc", *options, "do", "-force-overlay=false"]


class SandboxStage(ChannelStage):
    """A stage whose processes run in gVisor."""

    def unopened(self) -> tuple[Victim, int]:
        """Return a process that has connected, and where its channel was accepted."""
        family = self.family()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(f"{family.path}.channel")
            listener.listen()
            listener.settimeout(DEADLINE_S)
            victim = family.start()
            # The sandbox ends when its process does, and not when runsc is killed.
            self._stack.callback(family.reap)
            self._stack.callback(victim.close)
            with pytest.raises(FileNotFoundError):
                victim.open()
            victim.call("chconnect")
            connection, _ = listener.accept()
        return victim, connection.detach()


@pytest.fixture
def sandboxes(tmp_path: Path, victim_program: Path) -> Iterator[SandboxStage]:
    """A stage of the test's own, whose processes are in gVisor."""
    with ExitStack() as stack:
        yield SandboxStage(tmp_path, victim_program, stack, command_for(tmp_path))


@pytest.mark.parametrize("api", list(Api))
def test_process_in_gvisor_is_filled(sandboxes: SandboxStage, api: Api) -> None:
    """Every byte is right, of each of many threads, while the rest is filled and after that."""
    server, process = sandboxes.server(), sandboxes.channelled()
    before = server.fds()
    client = server.client()
    client.do(opening())
    process.hand_over(client, api=api, never_forks=True, never_changes_mappings=True)
    process.check(38, 30)
    process.victim.begin_reading(at(0), 20, nr_threads=60, step_pages=3)
    client.do(FINISHED)
    expected = b"".join(process.image.bytes(at(3 * i), 20) for i in range(60))
    assert wrong_pages(asyncio.run(process.victim.end_reading()), expected) == []
    assert client.do(RELEASE).state.ended
    process.check()
    client.close()
    server.wait_for_fds(before)


def test_mappings_that_change_in_gvisor_are_right(sandboxes: SandboxStage) -> None:
    """What is discarded, unmapped or moved, there or missing, is right where it is then."""
    server, process = sandboxes.server(), sandboxes.channelled()
    client = server.client()
    client.do(opening())
    process.hand_over(client)
    process.change()
    client.do(FINISHED)
    client.do(RELEASE)
    process.check_changed()


def test_child_in_gvisor_never_reads_zeros(sandboxes: SandboxStage) -> None:
    """A child, of which the daemon cannot be told, dies where something is missing; its parent,
    and what the child has seen already, are right."""
    server, process = sandboxes.server(), sandboxes.channelled()
    client = server.client()
    client.do(opening())
    process.hand_over(client)
    process.check(0, 16)
    child = process.fork()
    child.check(0, 16)
    with pytest.raises(EOFError):
        child.read(199)
    process.check()
