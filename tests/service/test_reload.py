"""SIGHUP: limits that are read again, and in force for what is being served."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.service.asking import Asker, Lazy, admin_path, hand_over_lazily
from tests.service.stage import Stage, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd

NR_PAGES = 4096


def serve(stage: Stage, config: Path) -> Lazy:
    """Serve a process as *config* says."""
    server = stage.server("--config", os.fspath(config))
    restored = stage.restored(((0, NR_PAGES),), NR_PAGES)
    return Lazy(server, restored, hand_over_lazily(server, restored), Asker(admin_path(server)))


def polled_ns(lazy: Lazy) -> int:
    """Return for how long its workers have asked for messages instead of sleeping."""
    return sum(worker["polled_ns"] for worker in lazy.asker.call("Describe")["workers"])


def test_reload_lets_workers_poll(stage: Stage) -> None:
    """Workers that slept between any two faults may ask for the next as soon as it says so."""
    config = stage.directory / "lazypagesd.toml"
    config.write_text("[limits]\npoll_us = 0\n")
    lazy = serve(stage, config)
    lazy.read(0, NR_PAGES // 2)
    assert polled_ns(lazy) == 0
    config.write_text("[limits]\npoll_us = 800\n")
    lazy.server.process.send_signal(signal.SIGHUP)
    lazy.server.wait_for_log("reloaded: ")
    lazy.read(NR_PAGES // 2, NR_PAGES // 2)
    assert polled_ns(lazy) > 0
    lazy.close()


def test_wrong_configuration_is_not_reloaded(stage: Stage) -> None:
    """What is in force stays, and why is logged."""
    config = stage.directory / "lazypagesd.toml"
    config.write_text("[limits]\npoll_us = 0\n")
    lazy = serve(stage, config)
    config.write_text("[limits]\npoll_us = -1\n")
    lazy.server.process.send_signal(signal.SIGHUP)
    lazy.server.wait_for_log("not reloaded, the limits are as before: ")
    lazy.read(0, NR_PAGES)
    assert polled_ns(lazy) == 0
    lazy.close()
