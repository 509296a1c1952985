"""The service as it is installed, and a systemd to run it for each test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.stage import Stage
from tests.support.victim import victim_program
from tests.systemd.bed import Bed

__all__ = ["victim_program"]

INSTALL_DEADLINE_S = 300.0
INIT = Path("/lib/systemd/systemd")


@pytest.fixture(scope="session")
def systemd_allowed() -> None:
    """Skip, with the exact reason, where no systemd can be booted."""
    if os.geteuid() != 0:
        pytest.skip("booting a systemd needs root")
    if not INIT.exists():
        pytest.skip(f"{INIT}: not there (package systemd)")
    if " cgroup2 " not in Path("/proc/mounts").read_text():
        pytest.skip("no cgroup2 is mounted")


@pytest.fixture(scope="session")
def installed(
    tmp_path_factory: pytest.TempPathFactory, repository: Path, systemd_allowed: None
) -> Path:
    """The directory into which everything is installed, as a package would be made."""
    directory = tmp_path_factory.mktemp("installed")
    make(repository, "install", directory)
    return directory


def make(repository: Path, target: str, directory: Path) -> None:
    """Install below *directory*, to be found in /usr, or remove it."""
    done = subprocess.run(
        ["make", target, f"DESTDIR={directory}", "PREFIX=/usr"],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture
def bed(tmp_path: Path, installed: Path) -> Iterator[Bed]:
    """A systemd of the test's own, whose service has not been started."""
    bed = Bed(tmp_path / "bed", installed)
    try:
        yield bed
    finally:
        print(bed.log())
        bed.close()


@pytest.fixture
def stage(tmp_path: Path, victim_program: Path) -> Iterator[Stage]:
    """Processes to restore, outside of what is booted."""
    with ExitStack() as stack:
        yield Stage(tmp_path, victim_program, stack)
