"""What the service manager is told of a daemon's life."""

from __future__ import annotations

import os

import pytest

from lazypagesd.service.status import count, duration, watchdog_s


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid())}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_watchdog_is_ours_or_none(environment: dict[str, str], expected: float | None) -> None:
    """A watchdog counts where the manager means this very process, and waits for any time."""
    assert watchdog_s(environment) == expected


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 sessions"), (1, "1 session"), (2, "2 sessions")]
)
def test_one_is_not_many(number: int, text: str) -> None:
    """What is counted is named as a person would."""
    assert count(number, "session") == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (40_900, "40 us"),
        (9_999_999, "9999 us"),
        (10_000_000, "10 ms"),
        (600_000_000_000, "600 s"),
    ],
)
def test_unit_suits_the_duration(ns: int, text: str) -> None:
    """Two digits at least, and not many more."""
    assert duration(ns) == text
