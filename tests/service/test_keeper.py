"""A daemon that is killed has a keeper, which starts another one that goes on: without systemd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.service.conftest import NR_PAGES, Stage
from tests.service.daemon import KEEPER, Daemon, members, wait_until
from tests.support import memory_cgroup
from tests.support.memory_cgroup import MemoryCgroup

pytestmark = pytest.mark.uffd

# Make keepers that do not get to run before they have been looked at; and then look at oneself.
BIRTHS = """
import os
from pathlib import Path
from lazypagesd.keeper import Keeper

def look(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\\t", 1) for line in lines)
    print(status["Name"], int(status["SigBlk"], 16) | int(status["SigIgn"], 16))

os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
for _ in range(20):
    keeper = Keeper({})
    keeper.start()
    look(keeper.pid)
look(os.getpid())
"""
# What somebody may send to all that is around a daemon.
SENT_TO_ALL = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}


def daemons(daemon: Daemon) -> list[int]:
    """Return the pids of daemons, but not of keepers, that were started for *daemon*."""
    return [pid for pid, name in members(daemon.process.pid).items() if name != KEEPER]


def keepers(daemon: Daemon) -> list[int]:
    """Return the pids of keepers."""
    return [pid for pid, name in members(daemon.process.pid).items() if name == KEEPER]


def kill_and_wait(daemon: Daemon, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill the daemon that serves, and wait for the next one to have taken over."""
    wait_until(lambda: len(keepers(daemon)) == 1, lambda: f"one keeper: {daemon.log}")
    [serving] = daemons(daemon)
    [keeper] = keepers(daemon)
    os.kill(serving, number)
    daemon.process.poll()
    # The keeper ends when the next one has all that it had, and a keeper of its own.
    wait_until(lambda: keeper not in keepers(daemon), lambda: f"a successor: {daemon.log}")


def start(stage: Stage, *options: str) -> Daemon:
    """Start a daemon with a keeper."""
    daemon = stage.start("-v", *options, keeper=True)
    daemon.wait_ready()
    return daemon


def test_keeper_is_one_from_its_birth() -> None:
    """It goes by its own name, and hears no signal, however long it has to wait until it runs;
    the daemon is as it was."""
    command = [sys.executable, "-c", BIRTHS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    *born, daemon = [line.split() for line in done.stdout.splitlines()]
    deaf_to = sum(1 << number - 1 for number in SENT_TO_ALL)
    assert {name for name, _ in born} == {KEEPER}
    assert all(int(mask) & deaf_to == deaf_to for _, mask in born)
    assert daemon[0] != KEEPER
    assert int(daemon[1]) & (1 << signal.SIGTERM - 1) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_restore_goes_on(stage: Stage, number: signal.Signals) -> None:
    """A restore whose daemon dies, however, is filled to its end by the next one, which then ends
    as the first would have; no keeper is left."""
    daemon = start(stage, "--drain", "lazy")
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    for page in (4, 5):
        kill_and_wait(daemon, number)
        assert restorer.read(7, page) == "right"
    restorer.check(7, NR_PAGES)
    wait_until(lambda: not members(daemon.process.pid), lambda: f"their end: {daemon.log}")
    assert daemon.log.count("taken over") == 2
    assert "process restore 1/7: drained" in daemon.log


@pytest.mark.parametrize("last", ["connect", "pid", "descriptor", "register", "word"])
def test_hand_off_goes_on_where_it_was(stage: Stage, last: str) -> None:
    """A restore tool whose daemon dies in the middle of the hand-off does not notice."""
    stage.checkpoint({7: NR_PAGES, 8: NR_PAGES}, {5})
    daemon = start(stage)
    restorer = stage.restorer()
    commands = ["connect", "pid 7", "descriptor 7", f"register 7 {NR_PAGES}", "pid -5"]
    commands += ["pid 8", "descriptor 8", f"register 8 {NR_PAGES}", "word"]
    for command in commands:
        restorer.do(command)
        if command.split()[0] == last:
            kill_and_wait(daemon)
    restorer.do("close")
    for pid in (7, 8):
        restorer.check(pid, NR_PAGES)
    wait_until(lambda: not members(daemon.process.pid), lambda: f"their end: {daemon.log}")
    assert daemon.errors == []


def test_keeper_ends_with_a_daemon_that_is_done(stage: Stage) -> None:
    """In the ordinary case nothing is started, and nothing stays."""
    daemon = start(stage)
    stage.released().check(7, NR_PAGES)
    assert daemon.wait() == 0
    wait_until(lambda: not members(daemon.process.pid), lambda: "the keeper's end")
    assert "taken over" not in daemon.log


def test_daemon_without_restores_is_followed_as_well(stage: Stage) -> None:
    """Whoever connects after the daemon was killed finds the next one."""
    daemon = start(stage)
    kill_and_wait(daemon)
    stage.released().check(7, NR_PAGES)
    wait_until(lambda: not members(daemon.process.pid), lambda: f"their end: {daemon.log}")


def test_signal_ends_both(stage: Stage) -> None:
    """A daemon that is told to end, with nothing to fill, is not followed."""
    daemon = start(stage)
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == -signal.SIGTERM
    wait_until(lambda: not members(daemon.process.pid), lambda: "the keeper's end")


def test_log_and_pidfile_go_on(stage: Stage) -> None:
    """The next daemon appends to the log, and is the one that the pid file names."""
    daemon = stage.start(
        "-d", "--pidfile", "pid", "-o", "log", "-v", "--drain", "lazy", keeper=True
    )
    daemon.wait_ready()
    assert daemon.wait() == 0
    pidfile, log = stage.work / "pid", stage.work / "log"
    first = int(pidfile.read_text())
    restorer = stage.released()
    try:
        assert restorer.read(7, 3) == "right"
        os.kill(first, signal.SIGKILL)
        assert restorer.read(7, 4) == "right"
        wait_until(lambda: "taken over" in log.read_text(), lambda: log.read_text())
        assert "begun by user" in log.read_text()
        assert int(pidfile.read_text()) != first
        restorer.check(7, NR_PAGES)
        wait_until(lambda: "ended" in log.read_text(), lambda: log.read_text())
    finally:
        restorer.kill()


def test_keeper_that_is_killed_is_replaced(stage: Stage) -> None:
    """A daemon without its keeper gets another one, which does its work as well."""
    daemon = start(stage, "--drain", "lazy")
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    [keeper] = keepers(daemon)
    os.kill(keeper, signal.SIGKILL)
    daemon.wait_for_log("the keeper has died, starting another")
    wait_until(lambda: len(keepers(daemon)) == 1, lambda: "another keeper")
    assert keepers(daemon) != [keeper]
    kill_and_wait(daemon)
    restorer.check(7, NR_PAGES)
    wait_until(lambda: not members(daemon.process.pid), lambda: f"their end: {daemon.log}")


def test_daemon_may_leave_everything_to_the_next(stage: Stage) -> None:
    """SIGUSR2 ends the daemon at once, and loses nothing: so it is upgraded in place."""
    daemon = start(stage, "--drain", "lazy")
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    daemon.send(signal.SIGUSR2)
    assert daemon.wait() == 0
    restorer.check(7, NR_PAGES)
    wait_until(lambda: not members(daemon.process.pid), lambda: f"their end: {daemon.log}")
    assert daemon.log.count("taken over") == 1


def test_daemon_without_a_keeper_does_not_leave(stage: Stage) -> None:
    """Where nobody would go on, SIGUSR2 is told of and does nothing."""
    daemon = stage.daemon("--drain", "lazy")
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    daemon.send(signal.SIGUSR2)
    daemon.wait_for_log("SIGUSR2: without a keeper all would be lost, ignoring")
    restorer.check(7, NR_PAGES)
    assert daemon.wait() == 0


def test_daemon_that_has_no_memory_left_is_followed(stage: Stage) -> None:
    """One that the kernel kills for the memory that it needs is followed as any other."""
    if not memory_cgroup.is_there():
        pytest.skip(f"no memory cgroup of the first version at {memory_cgroup.ROOT}")
    daemon = start(stage, "--drain", "lazy")
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    [serving] = daemons(daemon)
    with MemoryCgroup(kills=True) as cgroup:
        cgroup.admit(serving)
        cgroup.limit(0)
        # Whatever it needs now is too much.
        for page in range(4, NR_PAGES):
            assert restorer.read(7, page) == "right"
        wait_until(lambda: serving not in members(daemon.process.pid), lambda: daemon.log)
        assert daemon.process.wait() == -signal.SIGKILL
        restorer.check(7, NR_PAGES)
        wait_until(lambda: not members(daemon.process.pid), lambda: f"their end: {daemon.log}")


def test_successors_that_cannot_begin_lose_nothing(stage: Stage) -> None:
    """Three daemons in a row that find the images spoilt end at once, and the one that finds them
    whole goes on; who faults waits."""
    daemon = start(stage, "--drain", "lazy")
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    inventory = stage.images / "inventory.img"
    inventory.rename(inventory.with_suffix(".aside"))
    [serving] = daemons(daemon)
    os.kill(serving, signal.SIGKILL)
    daemon.process.wait()
    wait_until(lambda: len(daemon.errors) >= 3, lambda: daemon.log)
    restorer.begin_read(7, 4)
    inventory.with_suffix(".aside").rename(inventory)
    assert restorer.page() == "7 4 right"
    restorer.check(7, NR_PAGES)
    wait_until(lambda: not members(daemon.process.pid), lambda: f"their end: {daemon.log}")
    assert all("inventory.img" in error for error in daemon.errors)
