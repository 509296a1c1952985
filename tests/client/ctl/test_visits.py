"""Commands about restores that others have begun, against a daemon that runs."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from lazypagesd.client import Pace, Region, Restore
from lazypagesd.client.ctl.main import main
from tests.service.daemon import DEADLINE_S, NO_GRACE
from tests.service.serving import PAGE_SIZE, Server
from tests.service.stage import Restored, Stage, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd


def lazily_restored(server: Server, restored: Restored) -> Restore:
    """Return a restore that has finished, of which nothing is filled unasked."""
    restore = Restore.open("web", server.path, pace=Pace.LAZY)
    regions = [
        Region(part.start, part.nr_pages, part.key * PAGE_SIZE) for part in restored.image.parts
    ]
    restore.add_session(restored.fd, regions=regions, files=[restored.file])
    restore.finished()
    return restore


def waiting(server: Server, name: str) -> subprocess.Popen[str]:
    """Return a command that waits for a restore."""
    program = [sys.executable, "-m", "lazypagesd.client.ctl"]
    return subprocess.Popen(
        [*program, "wait", name, "--socket", server.path], stderr=subprocess.PIPE, text=True
    )


def next_line(command: subprocess.Popen[str]) -> str:
    """Return what it says next."""
    assert command.stderr is not None
    return command.stderr.readline().rstrip()


def test_pace_is_changed(stage: Stage) -> None:
    """A restore that was lazy is filled as soon as it is told to be eager."""
    server, restored = stage.server(), stage.restored()
    with lazily_restored(server, restored) as restore:
        assert restore.progress().nr_missing == 141
        assert main(["pace", "1", "eager", "--socket", str(server.path)]) == 0
        assert restore.release().ended
    restored.check()


def test_wait_returns_when_all_is_in(stage: Stage) -> None:
    """Somebody who has not begun it waits for a restore, and is told how far it is."""
    server, restored = stage.server(), stage.restored()
    with lazily_restored(server, restored) as restore, waiting(server, restore.name) as command:
        assert next_line(command) == "restore 1 (web): 0 % of 141 pages (0.6 MiB)"
        restore.set_pace(Pace.EAGER)
        assert command.wait(DEADLINE_S) == 0
        lines = [next_line(command) for _ in range(11)]
        assert "restore 1 (web): 100 % of 141 pages (0.6 MiB)" in lines
    restored.check()


def test_wait_goes_on_while_the_daemon_stops(stage: Stage) -> None:
    """A daemon that is told to stop fills what is missing, and says so to who waits."""
    server, restored = stage.server(), stage.restored()
    with lazily_restored(server, restored), waiting(server, "1") as command:
        assert next_line(command).endswith(" 0 % of 141 pages (0.6 MiB)")
        server.terminate()
        assert command.wait(DEADLINE_S) == 0
        assert server.wait() == 0
    restored.check()


def test_wait_is_interrupted(stage: Stage) -> None:
    """Who is interrupted says nothing, and the restore goes on."""
    server, restored = stage.server(), stage.restored()
    with lazily_restored(server, restored) as restore, waiting(server, "1") as command:
        assert next_line(command).endswith(" 0 % of 141 pages (0.6 MiB)")
        command.send_signal(signal.SIGINT)
        assert command.wait(DEADLINE_S) == 130
        assert next_line(command) == ""
        restore.set_pace(Pace.EAGER)
        assert restore.release().ended
    restored.check()


def test_wait_for_a_restore_that_fails(stage: Stage) -> None:
    """When its restore tool leaves too early, so does who waits: with an error."""
    server = stage.server(times=NO_GRACE)
    with Restore.open("web", server.path) as restore, waiting(server, "1") as command:
        assert next_line(command) == "restore 1 (web): waiting for its restore tool"
        restore.close()
        assert command.wait(DEADLINE_S) == 1
        assert next_line(command) == (
            "lazypagesctl: restore 1 (web): it has failed; the daemon's log says why"
        )


@pytest.mark.parametrize("words", [["pace", "7", "lazy"], ["wait", "restore 7 (criu)"]])
def test_restore_that_is_not_there(
    stage: Stage, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A number that nobody has is an error."""
    assert main([*words, "--socket", str(stage.server().path)]) == 1
    assert capsys.readouterr().err == (
        "lazypagesctl: attach: no restore 7 is being served for you\n"
    )
