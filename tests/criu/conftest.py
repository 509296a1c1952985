"""Find CRIU and the daemon's command, compile the victims, and give each test a bed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.criu.harness import Bed

_ROOT = Path(__file__).parents[2]
_VICTIMS = Path(__file__).parent / "victims"


def _find_criu() -> Path | None:
    candidates = [os.environ.get("CRIU"), _ROOT / ".build/criu/criu", shutil.which("criu")]
    return next((Path(path) for path in candidates if path and Path(path).exists()), None)


@pytest.fixture(scope="session")
def criu() -> Path:
    """CRIU, one that works here; else the test is skipped for exactly that reason."""
    if os.geteuid() != 0:
        pytest.skip("dumping and restoring with CRIU needs root")
    path = _find_criu()
    if path is None:
        pytest.skip("no CRIU: neither CRIU=, .build/criu/criu (tests/setup/get-criu.sh) nor PATH")
    check = subprocess.run([path, "check"], capture_output=True, text=True, timeout=30)
    if check.returncode != 0:
        pytest.skip(f"{path} check: {check.stderr.strip().splitlines()[-1:]}")
    return path


@pytest.fixture(scope="session")
def lazy_pages_command() -> list[str]:
    """The daemon's command; LAZYPAGESD_TEST_LAZY_PAGES names another (``criu lazy-pages``)."""
    other = os.environ.get("LAZYPAGESD_TEST_LAZY_PAGES")
    return shlex.split(other) if other else [sys.executable, "-m", "lazypagesd", "lazy-pages"]


@pytest.fixture
def beyond_criu(lazy_pages_command: list[str]) -> None:
    """Skip what ``criu lazy-pages`` is known not to do, when it is what runs."""
    if Path(lazy_pages_command[0]).name == "criu":
        pytest.skip("criu lazy-pages does not do this")


@pytest.fixture(scope="session")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that has the compiled victims, by name."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the victims")
    directory = tmp_path_factory.mktemp("victims")
    for source in _VICTIMS.glob("*.c"):
        command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]
        subprocess.run([*command, directory / source.stem, source], check=True, timeout=60)
    return directory


@pytest.fixture
def bed(criu: Path, lazy_pages_command: list[str], tmp_path: Path) -> Iterator[Bed]:
    """A bed of the test's own."""
    bed = Bed(criu, lazy_pages_command, tmp_path / "bed")
    yield bed
    bed.close()
