"""A stage for each test: a checkpoint, a daemon, restorers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.sanitizers import Interpreter
from tests.service.crashing import build_with_crash_points
from tests.service.daemon import Daemon
from tests.service.restorer import Restorer, compile_restorer, write_checkpoint

NR_PAGES = 64


class Stage:
    """A checkpoint, at first of process 7 alone, and whoever serves or restores it."""

    def __init__(self, directory: Path, program: Path, cleanup: ExitStack) -> None:
        self.images = directory / "images"
        self.work = directory / "work"
        self.work.mkdir()
        self._program = program
        self._cleanup = cleanup
        self.checkpoint({7: NR_PAGES})

    def checkpoint(self, processes: dict[int, int], zombies: set[int] | None = None) -> None:
        """Write another checkpoint."""
        write_checkpoint(self.images, processes, zombies or set())

    def start(
        self,
        *options: str,
        times: Mapping[str, float] | None = None,
        stdout: int = subprocess.PIPE,
        keeper: bool = False,
        command: Sequence[str] | None = None,
    ) -> Daemon:
        """Start the daemon, whatever becomes of it."""
        daemon = Daemon(
            self.images,
            self.work,
            *options,
            times=times,
            stdout=stdout,
            keeper=keeper,
            command=command,
        )
        self._cleanup.callback(daemon.close)
        return daemon

    def daemon(self, *options: str, times: Mapping[str, float] | None = None) -> Daemon:
        """Start the daemon, and wait until it is ready."""
        daemon = self.start(*options, times=times)
        daemon.wait_ready()
        return daemon

    def restorer(self, *commands: str) -> Restorer:
        """Start a restorer that does *commands*."""
        restorer = Restorer(self._program, self.work)
        self._cleanup.callback(restorer.close)
        restorer.do(*commands)
        return restorer

    def released(self, processes: dict[int, int] | None = None) -> Restorer:
        """Start a restorer that has handed over *processes*, and said its final word."""
        restorer = self.restorer("connect")
        for pid, nr_pages in (processes or {7: NR_PAGES}).items():
            restorer.take_over(pid, nr_pages)
        restorer.do("word", "close")
        return restorer

    def half_done(self) -> Restorer:
        """Start a restorer that has handed over process 7, and is not done."""
        restorer = self.restorer("connect")
        restorer.take_over(7, NR_PAGES)
        return restorer

    def pages(self, pid: int = 7) -> Path:
        """Return the pages file of process *pid*."""
        return self.images / f"pages-{pid}.img"


@pytest.fixture(scope="session")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    """What runs a copy of the package that has crash points."""
    return build_with_crash_points(tmp_path_factory.mktemp("crashing"))


@pytest.fixture(scope="session")
def restorer_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """restorer.c, compiled."""
    return compile_restorer(tmp_path_factory.mktemp("restorer"))


@pytest.fixture
def stage(tmp_path: Path, restorer_program: Path) -> Iterator[Stage]:
    """A stage of the test's own; whoever is on it in the end is killed."""
    with ExitStack() as cleanup:
        yield Stage(tmp_path, restorer_program, cleanup)
