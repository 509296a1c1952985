"""A move finds room where the state knows of nothing: what was there was made free before."""

from __future__ import annotations

import pytest

from lazypagesd.engine.worker import Worker
from tests.native.feeding import (
    IN_X,
    IN_Z,
    REMAP,
    REMOVE,
    SIZE,
    UNMAP,
    Quiet,
    X,
    Y,
    Z,
    events,
    message,
    moved,
    served,
)
from tests.native.states import BASE, PAGE, Region, regions_of
from tests.native.toucher import (
    Toucher,
)


def test_unmapping_read_before_the_echo_made_room_for_the_move(worker: Worker) -> None:
    """Whoever unmaps what a move has brought knows that its call has returned, and so that its
    echo has been read; an UNMAP before that was of what the image does not speak for."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, Y, Y + SIZE),
        message(UNMAP, X, X + SIZE),
    ]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.regions() == [moved(IN_X, Y)]
        assert fed.bits == [0, 0]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    "finds_it",
    [
        pytest.param(message(REMAP, Y, Z, SIZE), id="moved"),
        pytest.param(message(REMOVE, Y, Y + PAGE), id="emptied"),
    ],
)
def test_unmapping_that_one_read_brought_with_the_move_made_room_for_it(
    worker: Worker, finds_it: bytes, apart: bool
) -> None:
    """Nobody can have gone on after the move, and what a later event finds there is what it has
    brought. What that read has not brought was done since, and then something has grown there, of
    which nobody tells. (This move has no echo.)"""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, Y, Y + SIZE),
        finds_it,
    ]
    with served(worker, [IN_X], *messages, apart=apart) as fed:
        missing = {message(REMAP, Y, Z, SIZE): (Z, [0, 0])}
        addr, bits = missing.get(finds_it, (Y, [1, 0]))
        assert fed.bits == ([1, 1] if apart else bits)
        assert fed.session.counters.orders_guessed == 0
        assert apart or [region.start for region in fed.regions()] == [addr]


def test_unmapping_after_the_echo_is_of_what_came_though_something_grew(worker: Worker) -> None:
    """What a later event finds may have grown there, of which nobody tells."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Y + PAGE, Y + SIZE),
        message(REMOVE, Y + PAGE, Y + SIZE),
    ]
    with served(worker, [IN_X], *messages, apart=True) as fed:
        assert fed.bits == [0, 1]


def test_unmapping_of_what_a_move_brought_drops_it_before_the_next_comes(worker: Worker) -> None:
    """A move, an UNMAP and another move to one place take effect as they were read."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Y, Y + SIZE),
        message(REMAP, Z, Y, SIZE),
        message(UNMAP, Z, Z + SIZE),
    ]
    with served(worker, [IN_X, IN_Z], *messages) as fed:
        assert fed.regions() == [moved(IN_Z, Y)]
        assert fed.bits == [1, 1, 0, 0]


def test_rows_of_moves_find_room_where_the_state_knows_of_nothing(worker: Worker) -> None:
    """A move waits for the one that makes room, and that one for an UNMAP, all read too late."""
    far = BASE + 32 * PAGE
    messages = [
        message(REMAP, X, Y, SIZE),
        message(REMAP, Y, Z, SIZE),
        message(UNMAP, Z, Z + SIZE),
        message(UNMAP, Y, Y + SIZE),
        message(UNMAP, X, X + SIZE),
        message(REMAP, Z, far, SIZE),
    ]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.regions() == [moved(IN_X, Y)]
        assert fed.bits == [0, 0]


def test_move_that_makes_room_brings_along_what_made_room_for_it(worker: Worker) -> None:
    """An UNMAP that was read before a move to its place is of what was there before that move, and
    stays so when the move turns out to have been before others."""
    in_y = Region(Y + SIZE, 2, SIZE, 2)  # behind a hole, where the first move goes
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, Z, Z + 2 * SIZE),
        message(REMAP, Y, Z, 2 * SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Y, Y + 2 * SIZE),
    ]
    with served(worker, [IN_X, in_y], *messages) as fed:
        assert fed.regions() == [moved(IN_X, Y), moved(in_y, Z + SIZE)]
        assert fed.bits == [0] * 4


def test_moves_into_each_others_places_stay_as_they_were_read(worker: Worker) -> None:
    """The second goes to what the first has left, so it cannot have made room for the first."""
    messages = [
        message(REMAP, X, Y, SIZE),
        message(REMAP, Y, X, SIZE),
        message(UNMAP, X, X + SIZE),
        message(UNMAP, Y, Y + SIZE),
    ]
    with served(worker, [IN_X], *messages) as fed:
        assert fed.regions() == [IN_X]
        assert fed.bits == [0, 0]


@pytest.mark.uffd
@pytest.mark.parametrize("apart", [False, True])
def test_what_was_read_with_the_echo_was_done_before_the_call_had_returned(
    worker: Worker, apart: bool
) -> None:
    """So a move away from where the other has gone was of what had been there. Read later, it was
    of what the first has brought, and the place has been grown into from below."""
    with Toucher(16) as toucher:
        place = toucher.arena + 8 * PAGE
        messages = [
            message(REMAP, BASE, place, SIZE),
            message(UNMAP, BASE, BASE + SIZE),
            message(REMAP, place, Z, SIZE),
            message(UNMAP, place, place + SIZE),
        ]
        region = Region(BASE, 2, 0, 0)
        quiet = Quiet(worker, toucher.give_uffd(), region, *messages, apart=apart)
        assert regions_of(quiet.session.state.pointer) == [moved(region, Z if apart else place)]
        assert quiet.session.counters.orders_guessed == 0
        assert quiet.bits(worker) == [0, 0]


FAR = BASE + 64 * PAGE
# The last has told what it has discarded before the first was told.
LATE = [
    message(UNMAP, FAR, FAR + SIZE),
    message(REMAP, X, Y, SIZE),
    message(UNMAP, X, X + SIZE),
    message(REMAP, Y, FAR, SIZE),
]
ECHO = message(UNMAP, Y, Y + SIZE)
EMPTIED = message(REMOVE, Y, Y + PAGE)


@pytest.mark.parametrize(
    ("others", "was_before"),
    [
        pytest.param([*LATE, EMPTIED, ECHO], True, id="found"),
        pytest.param(
            [*LATE[:3], message(REMOVE, Y, Y + PAGE), LATE[3], ECHO], False, id="emptied"
        ),
        pytest.param([*LATE, message(REMAP, Z, Y, SIZE), ECHO], False, id="taken"),
        pytest.param([*LATE[1:], EMPTIED, ECHO], False, id="nothing-discarded"),
        pytest.param([*LATE[1:3], LATE[0], LATE[3], EMPTIED, ECHO], False, id="discarded-later"),
        pytest.param(
            [message(REMAP, FAR, 2 * FAR, SIZE), *LATE, EMPTIED, ECHO], False, id="an-echo"
        ),
    ],
)
def test_move_that_was_held_up_by_what_it_discards_was_done_before_that_was_told(
    worker: Worker, others: list[bytes], was_before: bool
) -> None:
    """What MREMAP_FIXED discards is told, and waits to be read, before the move itself is told. So
    it may have made room for one that was told in between, if what that has brought is found
    where it was; somebody else may have unmapped the very same, so it is a guess."""
    with served(worker, [IN_X, IN_Z], *others, apart=True) as fed:
        [at] = [region.start for region in fed.regions() if region.first_bit == 0]
        assert at == (Y if was_before else FAR)
        assert fed.session.counters.orders_guessed == was_before


@pytest.mark.uffd
@pytest.mark.parametrize("is_there", [True, False])
def test_kernel_tells_whether_a_move_that_was_held_up_made_room(
    worker: Worker, is_there: bool
) -> None:
    """Where no event says so, it does: the place is taken now, or was made free after the move."""
    with Toucher(16) as toucher:
        place = toucher.arena + 8 * PAGE
        uffd = toucher.give_uffd()
        if not is_there:
            unmapping = toucher.start("munmap", place, SIZE)
            assert events(uffd, 1) == [(UNMAP, place, place + SIZE, 0)]
            assert toucher.result(unmapping) == 0
        messages = [
            message(UNMAP, Z, Z + SIZE),
            message(REMAP, BASE, place, SIZE),
            message(UNMAP, BASE, BASE + SIZE),
            message(REMAP, place, Z, SIZE),
            message(UNMAP, place, place + SIZE),
        ]
        region = Region(BASE, 2, 0, 0)
        quiet = Quiet(worker, uffd, region, *messages, apart=True)
        assert regions_of(quiet.session.state.pointer) == [moved(region, place if is_there else Z)]
        assert quiet.session.counters.orders_guessed == is_there
        assert quiet.bits(worker) == [0, 0]


def test_tail_was_cut_off_when_its_move_was_told(worker: Worker) -> None:
    """So it is not of what another move has brought there, though it is told when the call of that
    has returned."""
    messages = [
        message(REMAP, X, Z + PAGE, PAGE),
        message(REMAP, Z, Y, PAGE),
        message(UNMAP, X, X + PAGE),
        message(UNMAP, Z + PAGE, Z + SIZE),
        message(UNMAP, Z, Z + PAGE),
    ]
    regions = [Region(X, 1, 0, 0), Region(Z, 1, PAGE, 1)]
    with served(worker, regions, *messages, apart=True) as fed:
        assert fed.regions() == [Region(Y, 1, PAGE, 1), Region(Z + PAGE, 1, 0, 0)]
        assert fed.bits == [0, 0]


def test_room_for_a_move_tells_what_was_before_another(worker: Worker) -> None:
    """Of two that make a place free the second has made room for the last move to it, and so has
    found what the first move has brought there: the other one was of what had been before."""
    messages = [
        *LATE,
        message(REMAP, Z, Y, SIZE),
        ECHO,
        message(UNMAP, Y, Y + SIZE),
        message(UNMAP, Z, Z + SIZE),
    ]
    with served(worker, [IN_X, IN_Z], *messages, apart=True) as fed:
        assert [region for region in fed.regions() if region.first_bit] == [moved(IN_Z, Y)]
        assert fed.bits == [1, 1, 0, 0]


def test_unmapping_long_after_a_move_is_no_echo(worker: Worker) -> None:
    """It says nothing about when the call has returned, for a move that stays has none; so what
    was unmapped in between at its destination is of what it has brought."""
    others = [message(REMOVE, Z + i * PAGE, Z + (i + 1) * PAGE) for i in range(20)]
    messages = [
        message(REMAP, X, Y, SIZE),
        message(UNMAP, Y, Y + SIZE),
        *others,
        message(UNMAP, X, X + SIZE),
    ]
    with served(worker, [IN_X], *messages, apart=True) as fed:
        assert fed.bits == [1, 1]


@pytest.mark.uffd
@pytest.mark.parametrize("has_echo", [True, False])
def test_unmapping_after_the_call_has_returned_is_of_what_came(
    worker: Worker, has_echo: bool
) -> None:
    """Whatever is there now has grown there. (It is told as soon as it is done, which is seen to
    be put off for the length of a read, but not of two.)"""
    with Toucher(16) as toucher:
        place = toucher.arena + 8 * PAGE
        messages = [
            message(REMAP, BASE, place, SIZE),
            *[message(UNMAP, BASE, BASE + SIZE)] * has_echo,
            message(UNMAP, place + PAGE, place + SIZE),
        ]
        quiet = Quiet(worker, toucher.give_uffd(), Region(BASE, 2, 0, 0), *messages, apart=True)
        assert quiet.bits(worker) == [0, 1]
