"""A restore by a real CRIU that ``lazypagesctl restore criu`` has served and runs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.criu.harness import Bed
from tests.criu.test_serve import check, command, server
from tests.criu.waiting import DEADLINE_S
from tests.service.serving import Server

__all__ = ["server"]

pytestmark = [pytest.mark.criu, pytest.mark.root]

GIVEN_UP = "Error: restore 1 (criu): hand-off: the restore closed the connection while"


def restoring(bed: Bed, server: Server, *options: str) -> list[str]:
    """Return the command that restores the bed's images."""
    return command(bed, server, "--criu", os.fspath(bed.criu), *options, verb="restore")


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def program(directory: Path, script: str) -> str:
    """Return a program that does something else than CRIU."""
    path = directory / "criu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return os.fspath(path)


def test_restore_in_one_step(bed: Bed, server: Server, victims: Path) -> None:
    """One command has a tree served and restores it, and nothing stays behind."""
    before = server.fds()
    bed.start(victims / "tree", 8)
    bed.dump()
    bed.go()
    done = run(restoring(bed, server, "--", *bed.restore_options()))
    assert (done.returncode, done.stdout) == (0, "restore 1 (criu)\n")
    check(bed)
    server.wait_for_log("restore 1 (criu): ended")
    server.wait_for_fds(before)


def test_restore_waits(bed: Bed, server: Server, victims: Path) -> None:
    """With --wait it returns when every page is in, at the pace that was asked for."""
    bed.start(victims / "tree", 8)
    bed.dump()
    options = ["--wait", "--pace", "1G", "--", *bed.restore_options()]
    done = run(restoring(bed, server, *options))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("restore 1 (criu): 100 % of ")
    assert "restore 1 (criu): ended" in server.log
    bed.go()
    check(bed)


def test_restore_has_the_exit_code_of_criu(bed: Bed, server: Server, victims: Path) -> None:
    """Where CRIU fails before it has connected, the daemon does not wait for it."""
    before = server.fds()
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    assert run(restoring(bed, server, "--", "--no-such-option")).returncode == 1
    server.wait_for_log(GIVEN_UP)
    server.wait_for_fds(before)


def test_restore_without_criu(bed: Bed, server: Server, victims: Path) -> None:
    """Where CRIU cannot be started, the daemon is told, and so is the user."""
    before = server.fds()
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    done = run(command(bed, server, "--criu", "/nowhere/criu", verb="restore"))
    assert done.returncode == 1
    assert done.stderr == "lazypagesctl: /nowhere/criu: No such file or directory\n"
    server.wait_for_log(GIVEN_UP)
    server.wait_for_fds(before)


def test_restore_that_was_refused_starts_no_criu(
    bed: Bed, server: Server, victims: Path, tmp_path: Path
) -> None:
    """Where the daemon refuses the images, CRIU is not started."""
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    (bed.images / "pages-1.img").write_bytes(b"")
    started = tmp_path / "started"
    criu = program(tmp_path, f"touch {started}")
    done = run(command(bed, server, "--criu", criu, verb="restore"))
    assert done.returncode == 1
    assert done.stderr.startswith("lazypagesctl: images: pages-1.img")
    assert not started.exists()


def test_giving_up_leaves_the_socket_of_another_alone(
    bed: Bed, server: Server, victims: Path, tmp_path: Path
) -> None:
    """A CRIU that fails is not taken for one of a later restore in the same work directory."""
    bed.start(victims / "tree", 8)
    bed.dump()
    criu = program(tmp_path, f"{shlex.join(command(bed, server))}; exit 3")
    done = run(command(bed, server, "--criu", criu, verb="restore"))
    assert (done.returncode, done.stdout) == (3, "restore 1 (criu)\nrestore 2 (criu)\n")
    bed.go()
    bed.restore()
    check(bed)
    server.wait_for_log("restore 2 (criu): ended")


# A stand-in, because CRIU itself blocks all signals while it restores, and while it waits for what
# it has restored.
def test_signal_is_for_criu(bed: Bed, server: Server, victims: Path, tmp_path: Path) -> None:
    """A signal to the command is one to CRIU, with whose end the restore has failed."""
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    criu = program(tmp_path, "echo started; exec sleep infinity")
    words = command(bed, server, "--criu", criu, verb="restore")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert [running.stdout.readline() for _ in range(2)] == ["restore 1 (criu)\n", "started\n"]
        running.send_signal(signal.SIGTERM)
        assert running.wait(DEADLINE_S) == 128 + signal.SIGTERM
    server.wait_for_log(GIVEN_UP)
