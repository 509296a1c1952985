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


def command(bed: Bed, server: Server, *options: str) -> list[str]:
    """Return the command that has the bed's images served."""
    words = ["serve", "criu", "-D", str(bed.images), "-W", str(bed.work)]
    program = [sys.executable, "-m", "lazypagesd.client.ctl"]
    return [*program, *words, "--socket", str(server.path), *options]


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


def test_command_waits(bed: Bed, server: Server, victims: Path) -> None:
    """With --wait the command returns when every page is in."""
    bed.start(victims / "tree", 8)
    bed.dump()
    with subprocess.Popen(
        command(bed, server, "--wait"), stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "restore 1 (criu)\n"
        bed.restore()
        assert waiting.wait(DEADLINE_S) == 0
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
