"""Restores by a real CRIU, served by the sandboxed service, that live through its death."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.criu.conftest import criu, lazy_pages_command, victims
from tests.criu.harness import Bed as CriuBed
from tests.criu.waiting import DEADLINE_S
from tests.service.daemon import wait_until
from tests.systemd.bed import SERVICE, Bed

__all__ = ["criu", "lazy_pages_command", "victims"]

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.criu,
    pytest.mark.root,
    pytest.mark.uffd,
    pytest.mark.timeout(400),
]

NR_KILLS = 50
MIB = 256
# So that pages are missing for as long as it takes.
PACE = "4M"
OPERATIONS = "mgudwwlp"  # of victims/churn.c: all that there are


@pytest.fixture
def criu_bed(criu: Path, lazy_pages_command: list[str], tmp_path: Path) -> Iterator[CriuBed]:
    """Where CRIU dumps and restores, outside of what is booted."""
    bed = CriuBed(criu, lazy_pages_command, tmp_path / "criu")
    yield bed
    bed.close()


def serve(bed: Bed, criu_bed: CriuBed, *options: str) -> None:
    """Have the images served, which the daemon has no right to open."""
    dirs = ["-D", os.fspath(criu_bed.images), "-W", os.fspath(criu_bed.work)]
    socket = os.fspath(bed.path("/run/lazypagesd/handoff.socket"))
    command = [sys.executable, "-m", "lazypagesd.client.ctl", "serve", "criu", *dirs]
    subprocess.run([*command, "--socket", socket, *options], check=True, timeout=DEADLINE_S)


def kill_at_random(bed: Bed, nr_kills: int) -> None:
    """Kill whichever daemon is there, again and again, and see that it comes back."""
    moments = random.Random(nr_kills)
    for number in range(nr_kills):
        if number % 10 == 9:
            # On a busy machine none might get that far.
            wait_for_takeovers(bed, number // 10 + 1)
        time.sleep(moments.uniform(0, 0.3))
        kill_and_wait(bed)


def wait_for_takeovers(bed: Bed, number: int) -> None:
    """Return when so many daemons have gone on with a restore."""
    wait_until(lambda: nr_takeovers(bed) >= number, bed.log)


def nr_takeovers(bed: Bed) -> int:
    """Return how many daemons have gone on with a restore."""
    return bed.log().count("taken over")


def kill_and_wait(bed: Bed) -> None:
    """Kill the daemon, and wait for the next."""
    pid = bed.daemon_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_another(bed, pid), bed.log)


def is_another(bed: Bed, pid: int) -> bool:
    """Whether a daemon runs that is not *pid*."""
    try:
        return bed.daemon_pid() != pid
    except AssertionError:  # it has not been started yet
        return False


def test_process_lives_through_fifty_kills(bed: Bed, criu_bed: CriuBed, victims: Path) -> None:
    """A process of 256 MiB that forks, moves, drops and rewrites its memory, while the daemon is
    killed at random moments, finds every page right."""
    bed.listen()
    criu_bed.start(victims / "churn", MIB, 30, OPERATIONS)
    criu_bed.dump()
    serve(bed, criu_bed, "--pace", PACE)
    criu_bed.go()
    criu_bed.restore()
    kill_at_random(bed, NR_KILLS)
    tally = criu_bed.tally("churn")
    assert tally.nr_wrong == 0, tally
    assert int((criu_bed.out / "forks").read_text()) > 0
    # Some die before they have: the moments are random.
    assert nr_takeovers(bed) >= NR_KILLS // 10
    assert int(bed.show("NRestarts")) >= NR_KILLS


@pytest.mark.parametrize("verb", ["restart", "reload"])
def test_process_does_not_notice(bed: Bed, criu_bed: CriuBed, victims: Path, verb: str) -> None:
    """What an operator does to the service in the middle of a restore costs no page."""
    bed.listen()
    criu_bed.start(victims / "plain", 64, 1)
    criu_bed.dump()
    serve(bed, criu_bed, "--pace", "8M")
    criu_bed.restore()
    bed.run("systemctl", verb, SERVICE)
    criu_bed.go()
    tally = criu_bed.tally("plain")
    assert tally.nr_wrong == 0, tally
    assert tally.nr_pages == 64 * 256
