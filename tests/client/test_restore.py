"""The client, against a daemon that runs and a process that waits for its pages."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from lazypagesd.client import Pace, Refused, Region, Restore
from lazypagesd.client.messages import REGIONS_MAX
from tests.service.daemon import DEADLINE_S, NO_GRACE
from tests.service.serving import PAGE_SIZE
from tests.service.stage import BASE, Restored, Stage, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd


def regions(restored: Restored) -> list[Region]:
    """Return where the pages of its image are."""
    return [
        Region(part.start, part.nr_pages, part.key * PAGE_SIZE) for part in restored.image.parts
    ]


def test_restore_is_handed_over(stage: Stage) -> None:
    """A process is filled by what a tool writes in a few lines."""
    server, restored = stage.server(), stage.restored()
    before = server.fds()
    with Restore.open("web", server.path) as restore:
        assert restore.name == "restore 1 (web)"
        pidfd = os.pidfd_open(restored.victim.pid)
        restore.add_session(
            restored.fd, regions=regions(restored), files=[restored.file], pidfd=pidfd
        )
        os.close(pidfd)
        restored.check(30, 40)
        progress = restore.progress()
        assert (progress.ended, progress.nr_live, progress.nr_pages) == (False, 1, 141)
        restore.finished()
        assert restore.release().ended
    restored.check()
    server.wait_for_fds(before)


@pytest.mark.parametrize("nr_regions", [REGIONS_MAX, REGIONS_MAX + 1, 2 * REGIONS_MAX + 1])
def test_long_lists_come_in_pieces(stage: Stage, nr_regions: int) -> None:
    """A list of any length arrives as a whole."""
    server, restored = stage.server(times=NO_GRACE), stage.restored()
    with Restore.open("", server.path) as restore:
        many = (Region(BASE + 2 * i * PAGE_SIZE, 1, 0) for i in range(nr_regions))
        restore.add_session(restored.fd, regions=many, files=[restored.file])
        assert restore.progress().nr_pages == nr_regions


def test_refusal_has_the_reasons(stage: Stage) -> None:
    """What the daemon refuses is raised, reason by reason, and nobody listens after it."""
    server, restored = stage.server(), stage.restored()
    with Restore.open("", server.path) as restore:
        with pytest.raises(Refused, match="needs 40960000 bytes of file 0, which has") as caught:
            restore.add_session(
                restored.fd,
                regions=[Region(BASE, 10_000, 0), Region(BASE + 1, 1, 0)],
                files=[restored.file],
            )
        assert len(caught.value.reasons) == 2
        with pytest.raises(OSError):
            restore.finished()


def test_abort_is_the_end(stage: Stage) -> None:
    """After abort() the daemon has hung up."""
    server = stage.server()
    with Restore.open("", server.path) as restore:
        restore.abort()
        for _ in range(2):  # the first request may still be sent
            with pytest.raises(ConnectionError, match=r"^restore 1: the daemon hung up; its log"):
                restore.progress()


def test_release_can_be_waited_for_by_the_way(stage: Stage) -> None:
    """Once begun, a release makes the connection readable when it is over, and not before."""
    server, restored = stage.server(), stage.restored()
    with Restore.open("", server.path, pace=Pace.LAZY) as restore:
        restore.add_session(restored.fd, regions=regions(restored), files=[restored.file])
        restore.finished()
        restore.begin_release()
        with Restore.attach(restore.id, server.path) as visitor:
            assert visitor.progress().nr_missing > 0
            assert not select.select([restore], [], [], 0)[0]
            visitor.set_pace(Pace.EAGER)
        assert select.select([restore], [], [], DEADLINE_S)[0]
        assert restore.end_release().ended
    restored.check()


def test_nobody_listens(tmp_path: Path) -> None:
    """Without a daemon the error names the socket."""
    with pytest.raises(FileNotFoundError) as caught:
        Restore.open("", tmp_path / "handoff.socket")
    assert caught.value.filename == str(tmp_path / "handoff.socket")


def test_socket_has_a_long_path(tmp_path: Path) -> None:
    """A path that no address has room for is named, and said to be too long."""
    path = tmp_path / ("long-" * 30)
    with pytest.raises(OSError) as caught:
        Restore.open("", path)
    assert (caught.value.strerror, caught.value.filename) == ("AF_UNIX path too long", str(path))
