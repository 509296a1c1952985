"""The service's life, by systemd's hand: begun by its socket, sandboxed, watched, reloaded."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from lazypagesd.client import Pace, Refused
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.native import lib
from lazypagesd.service.journal import MessageId
from tests.service.daemon import wait_until
from tests.service.stage import BASE, Stage
from tests.support.image import wrong_pages
from tests.systemd.bed import SERVICE, SOCKET, Bed
from tests.systemd.hang import hang_workers, reap

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.uffd, pytest.mark.timeout(400)]


def test_socket_starts_a_daemon_that_serves(bed: Bed, stage: Stage) -> None:
    """Who connects to the socket has his process served by the sandboxed daemon, and its child
    as well, to the last page."""
    bed.listen()
    assert bed.show("ActiveState") == "inactive"
    restored = stage.restored()
    restore = bed.hand_over(restored)
    restored.check(38, 30)
    child = asyncio.run(restored.victim.fork())
    restore.finished()
    progress = restore.release()
    assert (progress.ended, progress.nr_sessions, progress.nr_missing) == (True, 2, 0)
    restored.check()
    seen = asyncio.run(child.read(BASE, 200))
    assert wrong_pages(seen, restored.image.bytes(BASE, 200)) == []
    assert bed.show("ActiveState") == "active"


def test_admin_socket_starts_a_daemon_that_answers(bed: Bed) -> None:
    """Who asks is answered, if he may; others are told who may."""
    bed.run("systemctl", "start", "lazypagesd-admin.socket")
    assert bed.show("ActiveState") == "inactive"
    assert "nothing is being restored" in bed.run("lazypagesctl", "status")
    assert bed.show("ActiveState") == "active"
    done = bed.try_run("runuser", "-u", "nobody", "--", "lazypagesctl", "status")
    assert done.returncode == 4
    assert "it is for user root and group lazypagesd" in done.stderr


def test_daemon_is_powerless(bed: Bed) -> None:
    """It is no root, has no capability and gets none, is filtered, and alone in its network."""
    bed.run("systemctl", "start", SERVICE)
    process = Path(f"/proc/{bed.daemon_pid()}")
    status = dict(line.split(":\t") for line in (process / "status").read_text().splitlines())
    assert "0" not in status["Uid"].split()
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert (process / "ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def test_what_answers_faults_stays_in_memory(bed: Bed, stage: Stage) -> None:
    """The workers' buffers, the code that they run and a session's state are locked, without
    any capability, within the unit's limit."""
    bed.run("systemctl", "start", SERVICE)
    process = bed.daemon_pid()
    before = locked_bytes(process)
    buffers = lib.LPD_STAGING_SIZE + lib.LPD_NR_READS * lib.LPD_READ_SIZE
    assert before > buffers * len(os.sched_getaffinity(0))
    bed.hand_over(stage.restored())
    assert locked_bytes(process) > before


def locked_bytes(pid: int) -> int:
    """Return how much of its memory a process keeps."""
    [line] = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmLck:")
    ]
    return int(line.split()[1]) * 1024


def test_unit_is_rated_safe(bed: Bed) -> None:
    """The unit as it is shipped exposes at most 0.5 by systemd's own measure, of 10."""
    unit = f"/usr/lib/systemd/system/{SERVICE}"
    bed.run("systemd-analyze", "security", "--offline=yes", "--threshold=5", unit)


def test_units_are_understood(bed: Bed) -> None:
    """systemd complains of nothing in the units but of what only newer ones know."""
    done = bed.try_run("systemd-analyze", "verify", SERVICE, SOCKET)
    complaints = [line for line in done.stderr.splitlines() if "lazypagesd" in line]
    assert [line for line in complaints if "FileDescriptorStorePreserve" not in line] == []


def test_daemon_that_stands_still_is_replaced(bed: Bed, stage: Stage) -> None:
    """One that is stopped feeds no watchdog: the next one takes its restore over, and every page
    is right."""
    bed.configure("WatchdogSec=1s")
    bed.listen()
    restored = stage.restored()
    restore = bed.hand_over(restored)
    daemon = bed.main_pid()
    bed.run("kill", "-STOP", str(daemon))
    restored.check()
    assert bed.main_pid() != daemon
    assert bed.show("NRestarts") == "1"
    assert "Watchdog timeout" in bed.log()
    restore.finished()


def test_worker_that_hangs_is_replaced(bed: Bed, stage: Stage) -> None:
    """A daemon whose workers take no turn feeds no watchdog either, however well its first thread
    is."""
    bed.configure("WatchdogSec=1s")
    bed.listen()
    restored = stage.restored()
    restore = bed.hand_over(restored)
    threads = hang_workers(bed.daemon_pid())
    reap(threads)
    restored.check()
    assert bed.show("NRestarts") == "1"
    assert "Watchdog timeout" in bed.log()
    restore.finished()


def test_watchdog_is_fed(bed: Bed, stage: Stage) -> None:
    """Workers that do nothing, and those that do, are no reason to kill the daemon."""
    bed.configure("WatchdogSec=1s")
    bed.listen()
    restored = stage.restored()
    restore = bed.hand_over(restored, Pace(40 * PAGE_SIZE))  # which takes some seconds
    restore.finished()
    assert restore.release().nr_missing == 0
    assert bed.show("NRestarts") == "0"


def test_status_says_how_far_it_is(bed: Bed, stage: Stage) -> None:
    """The line of ``systemctl status`` counts restores, sessions, and what is filled."""
    bed.listen()
    restored = stage.restored()
    restore = bed.hand_over(restored)
    restored.check(50, 1)
    line = r"1 restore, 1 session, (\d+) % filled, (\d+) pages missing, no fault waiting"
    wait_until(lambda: re.fullmatch(line, bed.show("StatusText")) is not None, bed.log)
    said = re.fullmatch(line, bed.show("StatusText"))
    assert said
    filled, missing = map(int, said.groups())
    assert filled == 100 * (restored.image.nr_pages - missing) // restored.image.nr_pages < 100
    restore.finished()
    restore.release()
    restore.close()
    wait_until(lambda: bed.show("StatusText") == "0 restores, no session", bed.log)


def test_stop_fills_first(bed: Bed, stage: Stage) -> None:
    """What a lazy restore has not asked for yet is filled before ``systemctl stop`` returns."""
    bed.listen()
    restored = stage.restored()
    restore = bed.hand_over(restored, Pace.LAZY)
    restore.finished()
    restore.close()
    bed.run("systemctl", "stop", SERVICE)
    assert (bed.show("ActiveState"), bed.show("Result")) == ("inactive", "success")
    restored.check()


def test_restart_leaves_everything_to_the_next(bed: Bed, stage: Stage) -> None:
    """``systemctl restart`` waits for no page: the next daemon goes on, with the client too."""
    bed.listen()
    restored = stage.restored()
    restore = bed.hand_over(restored)
    before = bed.main_pid()
    bed.run("systemctl", "restart", SERVICE)
    assert bed.main_pid() != before
    restored.check(0, 50)
    restore.finished()
    restore.release()
    restored.check()


def test_restart_of_a_daemon_that_hangs(bed: Bed, stage: Stage) -> None:
    """Who does not leave when he is told to is killed, and the next one goes on."""
    bed.configure("WatchdogSec=0")
    bed.listen()
    restored = stage.restored()
    restore = bed.hand_over(restored)
    os.kill(bed.daemon_pid(), signal.SIGSTOP)
    bed.run("systemctl", "restart", SERVICE)
    restored.check()
    assert "has not left" in bed.log()
    restore.finished()


def test_stop_that_would_lose_pages_is_none(bed: Bed, stage: Stage) -> None:
    """Where a source is broken, a stop is refused, or leaves everything to the next start; once
    the source is whole again, so is the process."""
    bed.configure("Environment=LAZYPAGESD_STOP_PATIENCE=1")
    bed.listen()
    restored = stage.restored()
    whole = restored.image.path.read_bytes()
    restore = bed.hand_over(restored)
    os.truncate(restored.image.path, 20 * PAGE_SIZE)
    restore.finished()
    restore.close()
    stopped = bed.try_run("systemctl", "stop", SERVICE).returncode == 0
    assert stopped == (bed.show("FileDescriptorStorePreserve") == "yes")
    restored.image.path.write_bytes(whole)
    bed.run("systemctl", "start", SERVICE)
    restored.check()


def test_reload_keeps_limits_that_are_wrong_out(bed: Bed) -> None:
    """``systemctl reload`` puts the file's limits in force; if it is wrong, it is logged, and they
    stay."""
    config = bed.path("/etc/lazypagesd.toml")
    bed.run("systemctl", "start", SERVICE)
    config.write_text("[limits]\nrestores = 1\n")
    bed.run("systemctl", "reload", SERVICE)
    bed.wait_for_log("reloaded: ServeLimits(restores=1,")
    bed.restore()
    config.write_text("[limits]\nrestores = none\n")
    bed.run("systemctl", "reload", SERVICE)
    bed.wait_for_log("not reloaded, the limits are as before: /etc/lazypagesd.toml: ")
    with pytest.raises(Refused, match="1 restores are being served"):
        bed.restore()


def test_journal_has_fields(bed: Bed, stage: Stage) -> None:
    """What is logged of a restore is found by its number, and a page that cannot be had by the
    message's id, with the process that waits for it."""
    bed.listen()
    restored = stage.restored()
    restore = bed.hand_over(restored)
    os.truncate(restored.image.path, 0)
    restore.finished()
    bed.wait_for_log("cannot be filled")
    begun, *others = bed.entries(f"RESTORE={restore.id}")
    assert begun["MESSAGE"] == "restore 1: begun by user 0"
    assert (begun["PRIORITY"], begun["_SYSTEMD_UNIT"]) == ("6", SERVICE)
    assert others
    [trouble] = bed.entries(f"MESSAGE_ID={MessageId.PAGE_UNAVAILABLE}")
    assert (trouble["PRIORITY"], trouble["SESSION"]) == ("3", "restore 1/0")
    assert "put the whole file back" in trouble["MESSAGE"]


def test_next_daemon_says_what_it_took_over(bed: Bed, stage: Stage) -> None:
    """That a daemon died shows in the journal, restore by restore."""
    bed.listen()
    restore = bed.hand_over(stage.restored())
    os.kill(bed.daemon_pid(), signal.SIGKILL)
    restore.progress()
    [entry] = bed.entries(f"MESSAGE_ID={MessageId.TAKEN_OVER}")
    assert (entry["RESTORE"], entry["PRIORITY"]) == (str(restore.id), "4")


def test_signal_that_ends_it_is_survived(bed: Bed, stage: Stage) -> None:
    """A daemon that dies of a fault is started again, and goes on where it was."""
    bed.listen()
    restored = stage.restored()
    restore = bed.hand_over(restored)
    os.kill(bed.daemon_pid(), signal.SIGSEGV)
    restored.check()
    restore.finished()


def test_upgrade_can_ask_first(bed: Bed) -> None:
    """The sandboxed daemon says, where it is looked for, what it leaves."""
    bed.run("systemctl", "start", SERVICE)
    answer = bed.run("lazypagesd", "can-take-over")
    assert answer.startswith("/run/lazypagesd/state-version: version ")
