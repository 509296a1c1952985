"""A state that was left behind at some point of a round is one that a session can begin with."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lazypagesd.engine.session import Session
from lazypagesd.engine.state import State
from lazypagesd.engine.worker import Worker
from lazypagesd.native import ffi, lib
from tests.native.feeding import (
    FORK,
    IN_X,
    IN_Z,
    REMAP,
    REMOVE,
    SIZE,
    UNMAP,
    X,
    Y,
    Z,
    message,
    moved,
)
from tests.native.states import PAGE, bits_of, c_regions, nr_pages_of, regions_of
from tests.native.waiting import wait_readable

REGIONS = [IN_X, IN_Z]
AWAY = message(REMAP, X, Y, SIZE)
GONE = message(UNMAP, Z, Z + PAGE)
CLEARED = message(REMOVE, Y, Y + PAGE)


class Left:
    """A state as a daemon that was killed may have left it, with *messages* in its buffer."""

    def __init__(self, worker: Worker, *messages: bytes) -> None:
        self._worker = worker
        self.state = State.create("left", c_regions(REGIONS), 2, nr_pages_of(REGIONS), 1)
        self.raw = self.state.pointer
        ffi.buffer(self.raw.messages)[: len(b"".join(messages))] = b"".join(messages)

    def arrange(self, *order: int) -> None:
        for i, event in enumerate(order):
            self.raw.arranged[i] = self.raw.order[i] = event
        self.raw.nr_arranged = len(order)

    def finish(self) -> None:
        """Take it over, and let what it holds take effect, with nothing more to be read."""
        assert lib.lpd_state_check(self.raw, self.raw.size) == 0
        lib.lpd_state_take_over(self.raw)
        readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        session = Session("left", readable, self.state, [])
        self._worker.attach(session)
        session.request(lib.LPD_REQUEST_DETACH)
        detached: list[Session] = []
        while not detached:
            wait_readable(self._worker.report_fd, "the detached session")
            _, detached = self._worker.take_reports()
        os.close(writable)
        os.close(readable)

    def close(self) -> None:
        self.state.close()


@pytest.fixture
def left(worker: Worker) -> Iterator[Left]:
    """A state with three events: one moves, one unmaps elsewhere, one clears what was moved."""
    left = Left(worker, AWAY, GONE, CLEARED)
    yield left
    left.close()


def is_finished(left: Left) -> bool:
    """Whether each of the three has taken effect, once."""
    return regions_of(left.raw) == [moved(IN_X, Y), IN_Z] and bits_of(left.raw) == [1, 0, 1, 0]


def test_messages_that_were_read_take_effect(left: Left) -> None:
    """Whoever died before the round was arranged has left the messages, and they count."""
    left.finish()
    assert is_finished(left)
    assert left.raw.nr_missing == 2
    assert not any(bytes(ffi.buffer(left.raw.messages)))


def test_events_are_finished_from_where_they_were_left(left: Left) -> None:
    """One that has taken effect does not do so again, and the others keep their order, also if
    who died was about to change it."""
    left.arrange(0, 2, 1)
    lib.lpd_state_remap(left.raw, X, Y, SIZE, 1)
    left.raw.order[1] = left.raw.order[2] = 1  # one event is being moved, and is there twice
    left.finish()
    assert is_finished(left)
    assert left.raw.counters.events_remap == 0


def test_events_that_were_left_out_stay_so(left: Left) -> None:
    """What an arrangement has dropped is no event of the round."""
    left.arrange(0, 2)
    left.finish()
    assert regions_of(left.raw) == [moved(IN_X, Y), IN_Z]
    assert bits_of(left.raw) == [1, 0, 0, 0]


@pytest.mark.parametrize("nr_left", [0, 1, 2])
def test_round_that_was_being_cleared_is_over(left: Left, nr_left: int) -> None:
    """With its last messages cleared, no event of it takes effect once more."""
    left.arrange(0, 1, 2)
    lib.lpd_state_remap(left.raw, X, Y, SIZE, 3)
    for i in range(nr_left * 32, 3 * 32):
        left.raw.messages[i] = 0
    left.finish()
    assert regions_of(left.raw) == [moved(IN_X, Y), IN_Z]
    assert bits_of(left.raw) == [0, 0, 0, 0]


def test_cursor_without_messages_means_nothing(worker: Worker) -> None:
    """Whoever died between clearing the messages and the cursor has left a round that is over."""
    left = Left(worker)
    lib.lpd_state_remap(left.raw, X, Y, SIZE, 3)
    left.finish()
    assert regions_of(left.raw) == [moved(IN_X, Y), IN_Z]
    left.close()


def test_missing_pages_are_counted_anew(worker: Worker) -> None:
    """A bit that was set, and not yet counted, is counted."""
    left = Left(worker)
    lib.lpd_state_mark(left.raw, X, X + PAGE)
    left.raw.nr_missing += 1
    left.finish()
    assert left.raw.nr_missing == 3
    left.close()


def test_children_are_found_until_they_are_disowned(worker: Worker) -> None:
    """A FORK that was read tells of its child, and of none once it has been dealt with."""
    left = Left(worker, message(FORK, 7), GONE, message(FORK, 9))
    fds = ffi.new("int32_t[]", lib.LPD_MAX_MESSAGES)
    assert [fds[i] for i in range(lib.lpd_state_forks(left.raw, fds))] == [7, 9]
    lib.lpd_state_disown(left.raw, 7)
    assert [fds[i] for i in range(lib.lpd_state_forks(left.raw, fds))] == [9]
    lib.lpd_state_disown(left.raw, 9)
    left.finish()
    assert bits_of(left.raw) == [0, 0, 1, 0]
    left.close()


def test_arrangement_out_of_bounds_is_refused(left: Left) -> None:
    """An arrangement of messages that cannot be there is a broken state."""
    left.arrange(0, lib.LPD_MAX_MESSAGES)
    assert lib.lpd_state_check(left.raw, left.raw.size) != 0
    left.raw.arranged[1] = 1
    left.raw.nr_arranged = lib.LPD_MAX_MESSAGES + 1
    assert lib.lpd_state_check(left.raw, left.raw.size) != 0
