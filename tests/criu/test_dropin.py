"""What a script around ``criu lazy-pages`` sees: signals, exit codes, pid file and log."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.criu.harness import Bed
from tests.criu.waiting import wait_for_exit

pytestmark = [pytest.mark.criu, pytest.mark.root]


@pytest.mark.usefixtures("beyond_criu")
def test_restore_fails_when_the_daemon_was_killed(bed: Bed, victims: Path) -> None:
    """A restore that finds nobody at the socket fails and leaves no process behind: of a daemon
    without a keeper."""
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    bed.daemon("--no-keeper").kill()
    assert bed.try_restore() == 1
    assert not Path(f"/proc/{bed.pid}").exists()


def test_sigterm_ends_a_daemon_that_waits(bed: Bed, victims: Path) -> None:
    """SIGTERM before anyone has connected ends the daemon by that signal."""
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    daemon = bed.daemon()
    daemon.terminate()
    assert daemon.wait() == -signal.SIGTERM


# criu lazy-pages just ends, and every page that is missing reads as zeros.
@pytest.mark.usefixtures("beyond_criu")
def test_sigterm_does_not_lose_pages(bed: Bed, victims: Path) -> None:
    """SIGTERM while pages are missing lets the daemon finish first."""
    bed.start(victims / "plain", 512, 1)
    bed.dump()
    daemon = bed.daemon("-o", "lazy-pages.log")
    bed.restore()
    assert daemon.is_running()
    daemon.terminate()
    assert daemon.wait() == 0
    bed.go()
    tally = bed.tally("plain")
    assert tally.nr_wrong == 0, tally


def test_daemon_goes_to_the_background(bed: Bed, victims: Path) -> None:
    """With --daemon the parent ends with 0 and leaves the pid file, the child serves."""
    bed.start(victims / "plain", 16, 7)
    bed.dump()
    parent = bed.daemon("--daemon", "--pidfile", "lazy-pages.pid", "-o", "lazy-pages.log", "-v2")
    assert parent.wait() == 0
    pid_file = (bed.work / "lazy-pages.pid").read_bytes()
    assert pid_file == b"%d" % int(pid_file)
    assert (bed.work / "lazy-pages.log").exists()
    bed.go()
    bed.restore()
    assert bed.tally("plain").nr_wrong == 0
    wait_for_exit(int(pid_file), "daemon in the background")


def test_existing_pid_file_is_refused(bed: Bed, victims: Path) -> None:
    """A pid file that is there already is left alone, and the daemon does not stay."""
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    (bed.work / "lazy-pages.pid").write_text("1")
    daemon = bed.daemon_unready("--daemon", "--pidfile", "lazy-pages.pid")
    assert daemon.wait() == 1
    assert (bed.work / "lazy-pages.pid").read_text() == "1"
    assert bed.try_restore() == 1
