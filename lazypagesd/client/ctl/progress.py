"""How far a restore is, for whoever shows it."""

from __future__ import annotations

from lazypagesd.client.restore import Progress

PAGE_SIZE = 4096


def waiting_text(name: str) -> str:
    """Return what to say of a restore of which nothing has been handed over."""
    tool = "criu restore" if name.endswith("(criu)") else "its restore tool"
    return f"{name}: waiting for {tool}"


def has_begun(state: Progress) -> bool:
    """Say whether something has been handed over."""
    return state.ended or state.nr_sessions > 0


def percent(state: Progress) -> int:
    """Return how much is missing no more, rounded down."""
    if state.nr_pages == 0:
        return 100 if state.ended else 0
    return 100 * nr_done(state) // state.nr_pages


def nr_done(state: Progress) -> int:
    """Return how many pages are not missing: they are in, or their process is gone."""
    return max(state.nr_pages - state.nr_missing, 0)
