"""The demo tells its story to the end, in both ways of making a checkpoint, and leaves nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 16
NR_PAGES = MIB * 256
STEPS = ["Start", "Checkpoint", "Gone", "Daemon", "Restore", "First answer", "Filling", "Done"]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a directory in whose directories there may be a socket, however tests are run."""
    with tempfile.TemporaryDirectory(prefix="lpd-", dir="/tmp") as name:
        yield Path(name)


def _run_demo(
    command: list[str], tmp_path: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    lazy_pages = ["--lazy-pages-command", shlex.join(command)]
    return subprocess.run(
        [sys.executable, "-m", "lazypagesd.demo", "--size", str(MIB), *lazy_pages, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "TMPDIR": os.fspath(tmp_path), **environment},
    )


def _assert_all_is_told(run: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    assert run.returncode == 0, run.stdout + run.stderr
    positions = [run.stdout.index(f"{i}  {step}") for i, step in enumerate(STEPS, 1)]
    assert positions == sorted(positions)
    assert f"{NR_PAGES} of {NR_PAGES}" in run.stdout
    assert "\x1b" not in run.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.criu
@pytest.mark.root
def test_demo_with_criu(criu: Path, lazy_pages_command: list[str], tmp_path: Path) -> None:
    """A real checkpoint comes back whole, and plain text says so."""
    run = _run_demo(lazy_pages_command, tmp_path, CRIU=os.fspath(criu))
    _assert_all_is_told(run, tmp_path)
    assert "CRIU wrote it to disk" in run.stdout


# criu lazy-pages wants more of an image than is needed to serve it.
@pytest.mark.usefixtures("beyond_criu")
@pytest.mark.root
@pytest.mark.uffd
def test_demo_without_criu(lazy_pages_command: list[str], tmp_path: Path) -> None:
    """The demo's own checkpoint comes back whole through the same socket and files."""
    if os.geteuid() != 0:
        pytest.skip("userfaultfd with fork events needs root")
    run = _run_demo(lazy_pages_command, tmp_path, "--builtin")
    _assert_all_is_told(run, tmp_path)
    assert "the demo's own checkpoint wrote it to disk" in run.stdout


def test_demo_fails_without_its_daemon(tmp_path: Path) -> None:
    """A daemon that does not start is said to have not, and nothing is left behind."""
    run = _run_demo(["false"], tmp_path, "--builtin")
    assert run.returncode == 1
    assert "the daemon did not start" in run.stdout
    assert not list(tmp_path.iterdir())


def test_demo_wants_a_directory_of_a_short_name(tmp_path: Path) -> None:
    """Where no socket can be named, that is said at once, with what to do, and nothing runs."""
    (deep := tmp_path / ("d" * 100)).mkdir()
    run = _run_demo(["false"], deep, "--builtin")
    assert run.returncode == 1
    assert "too long for a socket" in run.stdout
    assert "TMPDIR" in run.stdout
    assert not list(deep.iterdir())
