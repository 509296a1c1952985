"""Restores of every kind at once, of which some come to grief: nobody else notices."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.crowd import Crowd, Programs, lives
from tests.support.victim import confine, victim_program

__all__ = ["confine", "victim_program"]

pytestmark = pytest.mark.uffd

NR_RESTORES = 100


def test_hundred_restores_of_every_kind(
    tmp_path: Path, victim_program: Path, confine: Path, restorer_program: Path
) -> None:
    """Every byte of those that live is right, whatever becomes of the others; only who breaks off
    is told of as an error, and nothing of anybody stays open."""
    with ExitStack() as stack:
        programs = Programs(victim_program, confine, restorer_program)
        crowd = Crowd(tmp_path, programs, NR_RESTORES, stack)
        server, before = crowd.server, crowd.server.fds()
        everybody = lives(crowd, NR_RESTORES)
        assert server.log.count(": begun by user") == NR_RESTORES
        assert server.log.count(": ended") == 0
        for life in everybody:
            life.begin()
        for life in everybody:
            life.finish()
        for life in everybody:
            life.end()
        server.wait_for_fds(before)
        broken_off = "closed the connection before it had finished"
        assert all(error.endswith(broken_off) for error in server.errors)
        assert len(server.errors) == sum(life.fails for life in everybody)
        assert server.log.count(": ended") == NR_RESTORES
