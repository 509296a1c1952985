"""The whole process that takes the place of ``criu lazy-pages``, when all goes well."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from tests.service.conftest import NR_PAGES, Stage
from tests.service.daemon import wait_until

pytestmark = pytest.mark.uffd


def test_every_page_is_right(stage: Stage) -> None:
    """Every page arrives with its own bytes, and then the daemon ends with 0."""
    daemon = stage.daemon()
    restorer = stage.released()
    restorer.check(7, NR_PAGES)
    assert daemon.wait() == 0
    assert daemon.log == ""


def test_pages_arrive_that_nobody_reads(stage: Stage) -> None:
    """The daemon delivers what nobody asks for, and ends; it is all there afterwards."""
    daemon = stage.daemon()
    restorer = stage.released()
    assert daemon.wait() == 0
    restorer.check(7, NR_PAGES)


def test_faults_are_answered_before_the_final_word(stage: Stage) -> None:
    """While the restore is under way a page that is read is filled, and no other is."""
    daemon = stage.daemon()
    restorer = stage.half_done()
    assert restorer.read(7, 3) == "right"
    restorer.do("word", "close")
    assert daemon.wait() == 0
    pages, faults = [
        row for line in daemon.stdout().splitlines() if (row := line.split())[0] == "7"
    ]
    assert pages[:3] == ["7", str(NR_PAGES), "1"]
    assert faults[:2] == ["7", "1"]


def test_processes_come_in_any_order(stage: Stage) -> None:
    """Several processes and zombies, not in the order of the images, are all served."""
    stage.checkpoint({7: 64, 8: 300, 9: 1}, zombies={5, 6})
    daemon = stage.daemon()
    restorer = stage.restorer("connect", "pid -6")
    restorer.take_over(9, 1)
    restorer.take_over(8, 300)
    restorer.do("pid -5")
    restorer.take_over(7, 64)
    restorer.do("word", "close")
    restorer.check(7, 64)
    restorer.check(8, 300)
    assert daemon.wait() == 0


def test_checkpoint_of_zombies_only_has_nothing_to_serve(stage: Stage) -> None:
    """A restore without descriptors ends the daemon with its final word, with 0."""
    stage.checkpoint({}, zombies={5})
    daemon = stage.daemon()
    stage.restorer("connect", "pid -5", "word", "close")
    assert daemon.wait() == 0


def test_socket_stays_behind(stage: Stage) -> None:
    """The socket's file is in the work directory at the end, as criu's is, and is no obstacle."""
    for _ in range(2):
        daemon = stage.daemon()
        stage.released()
        assert daemon.wait() == 0
        assert stat.S_ISSOCK((stage.work / "lazy-pages.socket").stat().st_mode)


def test_table_is_printed(stage: Stage) -> None:
    """What was done for each process is on stdout at the end."""
    daemon = stage.daemon()
    stage.released()
    assert daemon.wait() == 0
    heading, titles, row, _, _, histogram, summary = daemon.stdout().splitlines()
    assert heading == "restore 1: statistics"
    assert titles.split()[:3] == ["pages", "in", "image"]
    assert row.split()[:2] == ["7", str(NR_PAGES)]
    assert histogram.startswith("latencies from: ")
    assert summary.endswith("0 pages missing")


def test_table_is_in_a_log_of_level_3(stage: Stage) -> None:
    """`-v -o FILE` has what stdout has, and how it came about."""
    daemon = stage.daemon("-v", "-o", "lazy.log")
    stage.released()
    assert daemon.wait() == 0
    log = (stage.work / "lazy.log").read_text()
    for line in daemon.stdout().splitlines():
        assert line in log
    assert "process restore 1/7: drained" in log
    assert daemon.log == ""


def test_background_daemon_serves_and_ends(stage: Stage) -> None:
    """With --daemon the command returns 0 with the pid file written; the daemon has /dev/null for
    0, 1 and 2, serves, and is gone at the end."""
    command = stage.start("--daemon", "--pidfile", "lazy.pid", "-o", "lazy.log", "-v")
    command.wait_ready()
    assert command.wait() == 0
    assert command.stdout() == ""
    pid = int((stage.work / "lazy.pid").read_text())
    files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)]  # noqa: PTH115
    assert files == ["/dev/null"] * 3
    stage.released().check(7, NR_PAGES)
    wait_until(lambda: is_over(pid), lambda: "end of the daemon")
    assert "process restore 1/7: drained" in (stage.work / "lazy.log").read_text()


def is_over(pid: int) -> bool:
    """Say whether a process that is not our child has ended, reaped or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_options_without_effect_are_accepted(stage: Stage) -> None:
    """An option of criu's has no effect, one that nobody knows a warning, and all is served."""
    daemon = stage.daemon("--tcp-established", "--frobnicate")
    stage.released()
    assert daemon.wait() == 0
    [line] = daemon.log.splitlines()
    assert line.startswith("Warn: ")
    assert "--frobnicate" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--page-server"], "--page-server: not supported yet; copy the images here"),
        (["--stream"], "--stream: lazy-pages cannot read images from a stream"),
        (["-D", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["--action-script", "/bin/false"], "action script /bin/false: exited with status 1"),
        (["--pidfile", "stderr", "--daemon"], "stderr: File exists"),
    ],
)
def test_what_cannot_be_is_refused_before_a_restore(
    stage: Stage, options: list[str], message: str
) -> None:
    """The daemon ends with 1 and one line that says why; the status descriptor is just closed."""
    daemon = stage.start(*options)
    assert daemon.status() == b""
    assert daemon.wait() == 1
    [error] = daemon.errors
    assert error.startswith(message)
    assert not is_listening(stage.work)


@pytest.mark.parametrize(
    ("file", "size", "message"),
    [
        ("pages-7.img", 4096, "pages-7.img at offset 4096: shorter than"),
        ("pagemap-7.img", 10, "pagemap-7.img"),
        ("inventory.img", 0, "inventory.img"),
    ],
)
def test_damaged_image_is_refused_before_a_restore(
    stage: Stage, file: str, size: int, message: str
) -> None:
    """Images that cannot be served to the last byte are refused while nothing is handed over."""
    os.truncate(stage.images / file, size)
    daemon = stage.start()
    assert daemon.status() == b""
    assert daemon.wait() == 1
    [error] = daemon.errors
    assert error.startswith(message)
    assert not (stage.work / "lazy-pages.socket").exists()


def is_listening(work: Path) -> bool:
    """Say whether a restore would find somebody."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(work / "lazy-pages.socket")) == 0


def test_action_script_finds_somebody_listening(stage: Stage) -> None:
    """When an action script runs, a restore may connect."""
    script = stage.work / "script"
    script.write_text(
        '#!/bin/sh\necho "$CRTOOLS_SCRIPT_ACTION" >said\ntest -S lazy-pages.socket\n'
    )
    script.chmod(0o700)
    daemon = stage.daemon("--action-script", str(script))
    assert (stage.work / "said").read_text() == "status-ready\n"
    stage.released()
    assert daemon.wait() == 0


def test_connection_may_stay_open(stage: Stage) -> None:
    """A restore that goes on after its final word, as one in the foreground does, does not keep
    the daemon from ending."""
    daemon = stage.daemon()
    restorer = stage.half_done()
    restorer.do("word")
    assert daemon.wait() == 0
    restorer.check(7, NR_PAGES)


def test_stdout_that_is_closed_does_not_matter(stage: Stage) -> None:
    """All is well when every page was delivered, also if nobody wants to hear of it."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    daemon = stage.start(stdout=write_fd)
    os.close(write_fd)
    daemon.wait_ready()
    stage.released()
    assert daemon.wait() == 0
    assert daemon.log == ""


def test_interrupt_before_anybody_can_connect_is_quiet(stage: Stage) -> None:
    """SIGINT while an action script runs ends the daemon by that signal, and without a word."""
    script = stage.work / "script"
    script.write_text("#!/bin/sh\nkill -INT $PPID\nsleep 0.1\n")
    script.chmod(0o700)
    daemon = stage.start("--action-script", str(script))
    assert daemon.status() == b""
    assert daemon.wait() == -signal.SIGINT
    assert daemon.log == ""


def test_restores_are_told_apart_in_the_log(stage: Stage) -> None:
    """Of two processes that have one pid, as they are of one checkpoint, each has a name."""
    daemon = stage.daemon("-v", "-o", "lazy.log")
    first, second = stage.half_done(), stage.half_done()
    for restorer in (first, second):
        restorer.do("word", "close")
    assert daemon.wait() == 0
    log = (stage.work / "lazy.log").read_text()
    for number in (1, 2):
        assert f"process restore {number}/7: drained" in log
