"""A real CRIU's restore among many of other kinds, in one daemon."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.criu.harness import Bed
from tests.criu.waiting import DEADLINE_S
from tests.service.conftest import restorer_program
from tests.service.crowd import Crowd, Programs, lives
from tests.support.victim import confine, victim_program

__all__ = ["confine", "restorer_program", "victim_program"]

pytestmark = [pytest.mark.criu, pytest.mark.root, pytest.mark.uffd]

NR_OTHERS = 24


def serve(bed: Bed, crowd: Crowd) -> None:
    """Have the bed's images served."""
    paths: list[str | Path] = ["-D", bed.images, "-W", bed.work, "--socket", crowd.server.path]
    program = [sys.executable, "-m", "lazypagesd.client.ctl", "serve", "criu"]
    subprocess.run([*program, *paths], stdout=subprocess.DEVNULL, timeout=DEADLINE_S, check=True)


def test_criu_restores_among_others(
    bed: Bed,
    tmp_path: Path,
    victims: Path,
    victim_program: Path,
    confine: Path,
    restorer_program: Path,
) -> None:
    """A tree of processes is right, and so is everybody who is restored beside it."""
    bed.start(victims / "tree", 8)
    bed.dump()
    with ExitStack() as stack:
        programs = Programs(victim_program, confine, restorer_program)
        crowd = Crowd(tmp_path, programs, NR_OTHERS + 1, stack)
        before = crowd.server.fds()
        everybody = lives(crowd, NR_OTHERS)
        serve(bed, crowd)
        for life in everybody:
            life.begin()
        bed.go()
        bed.restore()
        for life in everybody:
            life.finish()
        for name in ("sharer", "threads", "parent"):
            tally = bed.tally(name)
            assert (tally.nr_pages, tally.nr_wrong) == (8 * 256, 0), (name, tally)
        for life in everybody:
            life.end()
        crowd.server.wait_for_fds(before)
        assert len(crowd.server.errors) == sum(life.fails for life in everybody)
