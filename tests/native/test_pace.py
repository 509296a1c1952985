"""How much may be filled unasked, by a clock that the test winds."""

from __future__ import annotations

import pytest

from lazypagesd.engine.pace import EAGER, LAZY, MAX_RATE
from lazypagesd.native import ffi, lib

SECOND = 10**9
START = 5000 * SECOND
PAGE = lib.LPD_PAGE_SIZE
MIB = 2**20


class Budget:
    """One session's, of which all that it allows is filled."""

    def __init__(self) -> None:
        self.pace = ffi.new("struct lpd_pace *")
        self.filled = 0

    def allow(self, rate: int, now_ns: int) -> int:
        """Return what may be filled now."""
        return lib.lpd_pace_allow(self.pace, rate, now_ns, self.filled)

    def fill(self, rate: int, now_ns: int) -> int:
        """Fill as many whole pages of it as there are."""
        nr_bytes = self.allow(rate, now_ns) // PAGE * PAGE
        self.filled += nr_bytes
        return nr_bytes

    def run(self, rate: int, start_ns: int, end_ns: int) -> int:
        """Fill whenever something is due; return how much that was."""
        before, now_ns = self.filled, start_ns
        while now_ns <= end_ns:
            self.fill(rate, now_ns)
            self.allow(rate, now_ns)
            now_ns = max(self.pace.due_ns, now_ns + 1)
        return self.filled - before


def test_eager_may_fill_anything_and_lazy_nothing() -> None:
    """The two ends do not depend on the clock."""
    for now_ns in 0, START:
        assert Budget().allow(EAGER.rate, now_ns) == 2**64 - 1
        assert Budget().allow(LAZY.rate, now_ns) == 0


@pytest.mark.parametrize("rate", [1, 1000, 4096, 65537, MIB, 64 * MIB, 10**9, MAX_RATE])
def test_rate_is_kept_to_a_turn(rate: int) -> None:
    """What is filled in a time is what the rate says, less one turn at most, and never more."""
    duration_ns = 20 * 65536 * SECOND // rate + 1
    turn = max(65536, PAGE + rate // SECOND + 1)
    filled = Budget().run(rate, START, START + duration_ns)
    due = rate * duration_ns // SECOND
    assert due - turn - PAGE <= filled <= due


def test_nothing_is_allowed_at_first() -> None:
    """A session does not begin with a burst."""
    assert Budget().allow(64 * MIB, START) == 0


@pytest.mark.parametrize("rate", [1, 1000, MIB, 10**9])
def test_what_is_allowed_is_a_page_at_least(rate: int) -> None:
    """When it is due, and not a nanosecond before, there is a page to be filled."""
    budget = Budget()
    assert budget.allow(rate, START) == 0
    due_ns = budget.pace.due_ns
    assert budget.allow(rate, due_ns - 1) == 0
    assert budget.allow(rate, due_ns) >= PAGE


def test_time_that_was_idled_away_is_lost() -> None:
    """After an hour of nothing to do there is a tenth of a second to be spent."""
    budget = Budget()
    budget.allow(MIB, START)
    assert budget.allow(MIB, START + 3600 * SECOND) == MIB // 10


def test_time_is_not_lost_to_oversleeping() -> None:
    """Who comes 50 ms late has as much more to fill."""
    budget = Budget()
    budget.allow(MIB, START)
    due_ns = budget.pace.due_ns
    in_time = budget.allow(MIB, due_ns)
    assert budget.allow(MIB, due_ns + SECOND // 20) == pytest.approx(in_time + MIB // 20, abs=1)


def test_faster_rate_counts_at_once() -> None:
    """Nobody waits for what a lower rate would have had them wait for."""
    budget = Budget()
    budget.allow(1, START)
    assert budget.pace.due_ns == START + PAGE * SECOND
    now_ns = START + SECOND // 100
    assert budget.allow(1, now_ns) == 0
    assert budget.allow(64 * MIB, now_ns) == 64 * MIB // 100


def test_what_was_filled_eagerly_is_not_paid_for() -> None:
    """A session that becomes paced owes nothing for what it filled before."""
    budget = Budget()
    budget.allow(EAGER.rate, START)
    budget.filled += 1000 * MIB
    assert budget.allow(MIB, START) == 0
    assert budget.pace.due_ns <= START + SECOND
