"""The drop-in at a pace of its own."""

from __future__ import annotations

import re
import signal

import pytest

from tests.service.conftest import NR_PAGES, Stage

pytestmark = pytest.mark.uffd


@pytest.mark.parametrize("pace", ["lazy", "1"])
def test_daemon_fills_nothing_unasked_until_it_is_to_end(stage: Stage, pace: str) -> None:
    """It serves what is touched; SIGTERM lets it fill the rest at once, and end with 0."""
    daemon = stage.daemon("--drain", pace)
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    assert restorer.read(7, 60) == "right"
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    # A page is counted after whom it is for has been woken.
    missing = re.search(r"SIGTERM: filling the (\d+) pages that are missing first", daemon.log)
    assert missing is not None
    assert NR_PAGES - 2 <= int(missing[1]) <= NR_PAGES
    restorer.check(7, NR_PAGES)


def test_lazy_daemon_ends_with_the_processes(stage: Stage) -> None:
    """When nobody is left who could touch anything, it ends with 0."""
    daemon = stage.daemon("--drain=lazy")
    restorer = stage.released()
    assert restorer.read(7, 3) == "right"
    restorer.kill()
    assert daemon.wait() == 0
    assert daemon.errors == []
