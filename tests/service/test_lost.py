"""What nothing helps against: it is told here, so that nobody believes otherwise."""

from __future__ import annotations

import os
import signal

import pytest

from tests.service.conftest import NR_PAGES
from tests.service.conftest import Stage as DropinStage
from tests.service.daemon import members, wait_until

pytestmark = pytest.mark.uffd


def test_zeros_are_read_when_both_are_killed_without_a_manager(stage: DropinStage) -> None:
    """Daemon and keeper are all that has the userfaultfd, and nobody is left to say so."""
    daemon = stage.start("-v", "--drain", "lazy", keeper=True)
    daemon.wait_ready()
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    os.killpg(daemon.process.pid, signal.SIGKILL)
    daemon.wait()
    wait_until(lambda: not members(daemon.process.pid), lambda: "the keeper to end")
    assert restorer.read(7, NR_PAGES - 1) == "zero"
    assert restorer.read(7, 3) == "right"
    assert daemon.errors == []
