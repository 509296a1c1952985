"""Events take effect in the order in which they took place, which is not that of reading."""

from __future__ import annotations

from lazypagesd.engine.worker import Worker
from lazypagesd.native import lib
from tests.native.feeding import (
    IN_X,
    IN_Z,
    REMAP,
    REMOVE,
    SIZE,
    UNMAP,
    Fed,
    X,
    Y,
    Z,
    message,
    moved,
    served,
)
from tests.native.states import BASE, PAGE, Region
from tests.native.waiting import wait_until


def test_move_waits_for_the_unmapping_that_made_room(worker: Worker) -> None:
    """A move read before the UNMAP of what was in its place loses nothing."""
    with served(
        worker, [IN_X, IN_Z], message(REMAP, Z, X, SIZE), message(UNMAP, X, X + SIZE)
    ) as fed:
        assert fed.regions() == [moved(IN_Z, X)]
        assert fed.bits == [1, 1, 0, 0]


def test_move_waits_for_the_move_that_made_room(worker: Worker) -> None:
    """A move read before another that left its place finds that place empty."""
    with served(
        worker, [IN_X, IN_Z], message(REMAP, Z, X, SIZE), message(REMAP, X, Y, SIZE)
    ) as fed:
        assert fed.regions() == [moved(IN_Z, X), moved(IN_X, Y)]
        assert fed.bits == [0, 0, 0, 0]


def test_moves_wait_for_each_other_in_a_row(worker: Worker) -> None:
    """Three moves read the wrong way round, each to where the next was, take effect in turn."""
    in_y = Region(Y, 2, 2 * SIZE, 2)
    in_z = IN_Z._replace(first_bit=4)
    far = BASE + 32 * PAGE
    messages = [
        message(REMAP, X, Y, SIZE),
        message(REMAP, Y, Z, SIZE),
        message(REMAP, Z, far, SIZE),
    ]
    with served(worker, [IN_X, in_y, in_z], *messages) as fed:
        assert fed.regions() == [moved(IN_X, Y), moved(in_y, Z), moved(in_z, far)]
        assert fed.bits == [0] * 6


def test_echo_of_a_move_does_not_drop_what_came_after(worker: Worker) -> None:
    """The UNMAP that says again that a move has left its place is no unmapping."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(REMAP, Z, X, SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Z, Z + SIZE),
    ]
    with served(worker, [IN_X, IN_Z], *messages) as fed:
        assert fed.regions() == [moved(IN_Z, X), moved(IN_X, Y)]
        assert fed.bits == [0, 0, 0, 0]
        assert fed.session.counters.events_unmap == 2


def test_one_move_has_one_echo(worker: Worker) -> None:
    """After a move has been echoed, the next UNMAP of that range is one."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, X, X + SIZE),
        message(REMAP, Z, X, SIZE),
        message(UNMAP, Z, Z + SIZE),
        message(UNMAP, X, X + SIZE),
    ]
    with served(worker, [IN_X, IN_Z], *messages, apart=True) as fed:
        assert fed.bits == [0, 0, 1, 1]


def test_unmapping_of_part_of_a_moved_range_is_no_echo(worker: Worker) -> None:
    """An UNMAP of other bounds than the move's does what it says."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Y, Y + PAGE),
    ]
    with served(worker, [IN_X], *messages, apart=True) as fed:
        assert fed.bits == [1, 0]


def test_tail_that_a_move_cut_off_is_unmapped_with_it(worker: Worker) -> None:
    """What a shrinking move has unmapped first and tells last does not drop what came after."""
    in_x, in_z = IN_X._replace(nr_pages=1), Region(Z, 1, PAGE, 1)
    messages = [
        message(REMAP, X, Y, PAGE),
        message(REMAP, Z, X + PAGE, PAGE),
        message(UNMAP, X + PAGE, X + SIZE),
        message(UNMAP, X, X + PAGE),
    ]
    with served(worker, [in_x, in_z], *messages) as fed:
        assert fed.regions() == [moved(in_z, X + PAGE), moved(in_x, Y)]
        assert fed.bits == [0, 0]


def test_no_tail_follows_the_echo_of_its_move(worker: Worker) -> None:
    """What is unmapped behind where a move began, after that move's echo, is not its tail."""
    messages = [
        message(REMAP, X, Y, PAGE),
        message(UNMAP, X, X + PAGE),
        message(REMAP, X + PAGE, Y + PAGE, PAGE),
        message(UNMAP, X + PAGE, X + SIZE),
        message(UNMAP, X + PAGE, X + SIZE),
    ]
    with served(worker, [IN_X], *messages) as fed:
        assert [region.start for region in fed.regions()] == [Y, Y + PAGE]
        assert fed.bits == [0, 0]


def test_removal_keeps_its_place_in_the_order(worker: Worker) -> None:
    """Pages that are emptied after they were moved are emptied where they are then."""
    messages = [message(REMAP, X, Y, SIZE), message(REMOVE, Y, Y + PAGE)]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.bits == [1, 0]


def test_moves_in_a_circle_take_effect_as_read(worker: Worker) -> None:
    """Events that all wait for each other do not stop the session."""
    messages = [message(REMAP, X, Z, SIZE), message(REMAP, Z, X, SIZE)]
    with served(worker, [IN_X, IN_Z], *messages) as fed:
        assert fed.session.counters.events_remap == 2


def test_unknown_event_is_counted(worker: Worker) -> None:
    """An event of a later kernel is passed over, those behind it are not."""
    messages = [message(0x77, 1, 2, 3), message(UNMAP, X, X + PAGE)]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.session.counters.events_unknown == 1
        assert fed.bits == [1, 0]


def test_full_buffer_of_events_takes_effect(worker: Worker) -> None:
    """More messages than one round has room for are served in several."""
    n = lib.LPD_MAX_MESSAGES + 5
    messages = [message(UNMAP, X + i * PAGE, X + (i + 1) * PAGE) for i in range(n)]
    with Fed(worker, [Region(X, n + 1, 0, 0)], messages) as fed:
        wait_until(lambda: fed.session.counters.events_unmap == n, "every event")
        fed.finish()
        assert fed.bits == [1] * n + [0]
