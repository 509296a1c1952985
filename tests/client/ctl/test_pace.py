"""Paces and restores on a command line."""

from __future__ import annotations

import pytest

from lazypagesd.client.ctl.pace import parse_pace, parse_restore
from lazypagesd.client.restore import Pace
from lazypagesd.engine import pace as daemon


@pytest.mark.parametrize("text", ["1", "4096", "64K", "64M", "2G", "1048576G", "1125899906842624"])
def test_rate_is_what_the_daemon_reads(text: str) -> None:
    """A rate means here what it means as an option of the daemon."""
    assert parse_pace(text) == Pace(daemon.Pace.parse(text).rate)


def test_ends_have_names() -> None:
    """Both ends of a pace are words."""
    assert parse_pace("eager") == Pace.EAGER
    assert parse_pace("lazy") == Pace.LAZY


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5M", "64m", "64 M", "64MiB", "Eager", "1048577G", "1" * 17]
)
def test_what_is_no_pace_is_none_for_the_daemon_either(text: str) -> None:
    """Anything else is refused, here as there."""
    with pytest.raises(ValueError, match="neither eager, nor lazy, nor bytes a second"):
        parse_pace(text)
    with pytest.raises(ValueError):
        daemon.Pace.parse(text)


@pytest.mark.parametrize("text", ["12", "restore 12", "restore 12 (criu)", "restore 12 (a (b))"])
def test_restore_is_called_as_it_was_printed(text: str) -> None:
    """Its number will do, and so will the whole line that names it."""
    assert parse_restore(text) == 12


@pytest.mark.parametrize("text", ["", "criu", "-1", "restore", "1 2", "restore 1 criu", "9" * 20])
def test_no_restore_is_called_so(text: str) -> None:
    """What has no number is refused."""
    with pytest.raises(ValueError, match="no restore is called so"):
        parse_restore(text)
