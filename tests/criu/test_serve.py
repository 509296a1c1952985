"""A real CRIU's restore, handed over to a daemon that stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.criu.harness import Bed
from tests.criu.waiting import DEADLINE_S
from tests.service.serving import Server

pytestmark = [pytest.mark.criu, pytest.mark.root]

PAGES_PER_MIB = 256
SUN_PATH_MAX = 108  # of struct sockaddr_un, man 7 unix


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A daemon that serves."""
    server = Server(tmp_path)
    yield server
    server.close()


@pytest.fixture
def deep_bed(criu: Path, lazy_pages_command: list[str], tmp_path: Path) -> Iterator[Bed]:
    """A bed with directories whose paths are longer than a socket's may be."""
    bed = Bed(criu, lazy_pages_command, tmp_path / ("deep-" * 30))
    yield bed
    bed.close()


def command(
    bed: Bed, server: Server, *options: str, verb: str = "serve", work: Path | None = None
) -> list[str]:
    """Return the command that has the bed's images served."""
    dirs = ["-D", os.fspath(bed.images), "-W", os.fspath(work or bed.work)]
    program = [sys.executable, "-m", "lazypagesd.client.ctl", verb, "criu"]
    return [*program, *dirs, "--socket", os.fspath(server.path), *options]


def check(bed: Bed) -> None:
    """See that every page is right."""
    for name in ("sharer", "threads", "parent"):
        tally = bed.tally(name)
        assert tally.nr_wrong == 0, (name, tally)
        assert tally.nr_pages == 8 * PAGES_PER_MIB


def test_criu_restores(bed: Bed, server: Server, victims: Path) -> None:
    """A tree is restored, the command returning when it may be, and nothing stays behind."""
    before = server.fds()
    bed.start(victims / "tree", 8)
    bed.dump()
    done = subprocess.run(
        command(bed, server), capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    assert done.stdout == "restore 1 (criu)\n"
    bed.go()
    bed.restore()
    check(bed)
    server.wait_for_log("restore 1 (criu): ended")
    server.wait_for_fds(before)


def test_wait_is_told_that_criu_failed(bed: Bed, server: Server, victims: Path) -> None:
    """With --wait a CRIU that connects and fails is an error of the command, too."""
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    core = next(bed.images.glob("core-*.img"))
    core.unlink()
    with subprocess.Popen(
        command(bed, server, "--wait"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "restore 1 (criu)\n"
        assert bed.try_restore() != 0
        assert waiting.wait(DEADLINE_S) == 1
        assert waiting.stderr is not None
        assert waiting.stderr.read().splitlines()[-1] == (
            "lazypagesctl: restore 1 (criu): the daemon hung up; its log says why"
        )


def test_command_waits(bed: Bed, server: Server, victims: Path) -> None:
    """With --wait the command returns when every page is in."""
    bed.start(victims / "tree", 8)
    bed.dump()
    with subprocess.Popen(
        command(bed, server, "--wait"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "restore 1 (criu)\n"
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "restore 1 (criu): waiting for criu restore\n"
        bed.restore()
        assert waiting.wait(DEADLINE_S) == 0
        *_, last = waiting.stderr.read().splitlines()
        assert last.startswith("restore 1 (criu): 100 % of ")
    bed.go()
    check(bed)


def test_work_directory_has_a_long_path(deep_bed: Bed, server: Server, victims: Path) -> None:
    """CRIU finds its socket in a directory whose path no socket address has room for."""
    assert len(os.fspath(deep_bed.work)) > SUN_PATH_MAX
    deep_bed.start(victims / "tree", 8)
    deep_bed.dump()
    subprocess.run(command(deep_bed, server), timeout=DEADLINE_S, check=True)
    deep_bed.go()
    deep_bed.restore()
    check(deep_bed)


def test_one_image_is_served_at_once_and_again(bed: Bed, server: Server, victims: Path) -> None:
    """Two restores of one image at the same time, in pid namespaces, are right, and a third."""
    bed.start(victims / "plain", 64, 7919)
    bed.dump()
    before = server.fds()
    for works in [("one", "two"), ("three",)]:
        restores = []
        for name in works:
            work = bed.directory / name
            work.mkdir()
            # What it does not touch is missing until all have been looked at: they do overlap.
            words = command(bed, server, "--pace", "lazy", work=work)
            subprocess.run(words, timeout=DEADLINE_S, check=True)
            restores.append(bed.start_restore_in_pid_namespace(work))
        assert [restore.wait() for restore in restores] == [0] * len(works)
        for restore in restores:
            (restore.out / "go").touch()
            tally = restore.tally("plain")
            assert (tally.nr_wrong, tally.nr_pages) == (0, 64 * PAGES_PER_MIB)
    for number in (1, 2, 3):
        server.wait_for_log(f"restore {number} (criu): ended")
    server.wait_for_fds(before)


def test_images_that_cannot_be_served_are_refused(bed: Bed, server: Server, victims: Path) -> None:
    """What is wrong with the images is said before CRIU may begin."""
    bed.start(victims / "tree", 8)
    bed.dump()
    (bed.images / "pages-1.img").write_bytes(b"")
    done = subprocess.run(
        command(bed, server), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("lazypagesctl: images: pages-1.img")
