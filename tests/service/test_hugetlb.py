"""Memory of hugetlbfs, handed over with the native protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from lazypagesd.kernel.uffd import Feature
from lazypagesd.proto import handoff_pb2 as pb
from tests.service.manager import Manager, Numbered
from tests.service.scene import LAZY
from tests.service.serving import FINISHED, RELEASE, opening, regions_of, session
from tests.service.stage import Restored, Stage
from tests.support.hugetlb import HUGE, MAP_HUGETLB, huge_pages
from tests.support.victim import victim_program

__all__ = ["huge_pages", "victim_program"]

pytestmark = [pytest.mark.uffd, pytest.mark.usefixtures("huge_pages")]

NR_HUGE = 8
RUNS = ((7, HUGE), (2 * HUGE + 3, 5 * HUGE))


@pytest.fixture
def restored(tmp_path: Path, victim_program: Path) -> Iterator[Restored]:
    """A process in which all memory is huge."""
    with ExitStack() as stack:
        yield Stage(tmp_path, victim_program, stack).restored(
            RUNS, NR_HUGE * HUGE, features=Feature.MISSING_HUGETLBFS, flags=MAP_HUGETLB
        )


def test_process_goes_on_with_the_next_daemon(tmp_path: Path, restored: Restored) -> None:
    """Every byte is right, whoever has filled it: on demand, after the daemon was killed, and by
    the drain."""
    with closing(Manager(tmp_path)) as manager:
        manager.wait_ready()
        client = Numbered(manager.client())
        client.do(opening(pace=LAZY))
        client.do(session(regions_of(restored.image)), restored.fd, restored.file)
        client.do(FINISHED)
        restored.check(0, 2 * HUGE)
        manager.kill_and_restart()
        restored.check(2 * HUGE + 100, HUGE)
        manager.kill_and_restart()
        client.do(pb.Request(set_pace=pb.SetPace(pace=pb.Pace())))
        state = client.do(RELEASE).state
        assert (state.ended, state.nr_live, state.nr_missing) == (True, 0, 0)
        restored.check(0, NR_HUGE * HUGE)
        client.close()
        manager.wait_for_nothing_stored()
