"""What tests of a takeover begin with: a manager, and processes that were handed over to its
daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lazypagesd.proto import handoff_pb2 as pb
from tests.service.manager import Manager, Numbered
from tests.service.serving import opening, regions_of, session
from tests.service.stage import Restored, Stage

LAZY = pb.Pace(kind=pb.Pace.LAZY)


class Scene:
    """A manager, and processes to be restored; all of it ends with the test."""

    def __init__(self, directory: Path, program: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._stage = Stage(directory, program, stack)
        self._directory = directory

    def manager(self, **options: object) -> Manager:
        manager = Manager(self._directory, **options)  # type: ignore[arg-type]
        self._stack.callback(manager.close)
        manager.wait_ready()
        return manager

    def restored(self) -> Restored:
        return self._stage.restored()

    def handed_over(
        self, manager: Manager, *, pace: pb.Pace | None = None
    ) -> tuple[Numbered, Restored]:
        """Return a client that has handed a process over, and has not finished."""
        restored = self.restored()
        client = Numbered(manager.client())
        client.do(opening(pace=pace))
        client.do(session(regions_of(restored.image)), restored.fd, restored.file)
        restored.close()
        return client, restored


@pytest.fixture
def scene(tmp_path: Path, victim_program: Path) -> Iterator[Scene]:
    """A scene of the test's own."""
    with ExitStack() as stack:
        yield Scene(tmp_path, victim_program, stack)
