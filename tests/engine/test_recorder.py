"""The flight recorder: what workers did last, read while they go on, and taken over."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lazypagesd.engine.engine import Engine
from lazypagesd.engine.recorder import (
    FAULT_LAYOUT,
    STEP_LAYOUT,
    Fault,
    Recorder,
    Step,
    StepKind,
)
from lazypagesd.errors import SessionError
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.native import ffi, lib
from tests.engine.bed import Bed, at, check
from tests.support.refusal import Refusal
from tests.support.rings import all_of

CAPACITY = lib.LPD_RECORDER_FAULTS
# As a worker writes faults that are all alike: address, offset and time say which it is.
SESSION = 7


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recorder that no worker has."""
    with Recorder.create(3) as recorder:
        yield recorder


def write(recorder: Recorder, start: int, end: int) -> None:
    """Write faults number *start* to *end*, as far as they are not overwritten, and count them."""
    place = memoryview(ffi.buffer(recorder.pointer.faults))
    for number in range(max(start, end - CAPACITY), end):
        FAULT_LAYOUT.pack_into(
            place,
            number % CAPACITY * FAULT_LAYOUT.size,
            *(number, number, number, number, SESSION + number % 2, 0, 0, 1, 0, 1),
        )
    recorder.pointer.nr_faults = end


def numbers(faults: list[Fault]) -> list[int]:
    """Return which faults these are; each is what it was written as."""
    assert all(each.time_ns == each.addr == each.offset == each.latency_ns for each in faults)
    return [each.addr for each in faults]


def test_layouts_are_those_of_c() -> None:
    """Python unpacks as many bytes as C writes."""
    assert ffi.sizeof("struct lpd_fault") == FAULT_LAYOUT.size
    assert ffi.sizeof("struct lpd_step") == STEP_LAYOUT.size


def test_new_recorder_is_empty_and_takes_no_memory(recorder: Recorder) -> None:
    """What is not written yet costs a page, for the head."""
    assert (all_of(recorder.faults), all_of(recorder.steps)) == ([], [])
    assert os.fstat(recorder.fd).st_blocks * 512 == PAGE_SIZE


def test_full_ring_has_the_last_ones(recorder: Recorder) -> None:
    """Once it has gone round, a ring has its capacity less one, and says how many are lost."""
    write(recorder, 0, CAPACITY + 1000)
    assert recorder.faults.nr_lost == 1001
    assert numbers(all_of(recorder.faults)) == list(range(1001, CAPACITY + 1000))


def test_filter_leaves_others_out(recorder: Recorder) -> None:
    """A reader who wants some sessions gets theirs alone, from the old end or the new."""
    write(recorder, 0, 5000)
    assert numbers(all_of(recorder.faults, {SESSION + 1})) == list(range(1, 5000, 2))
    newest = list(recorder.faults.newest(3, {SESSION}))
    assert numbers(newest[0]) == [4994, 4996, 4998]
    assert len(newest) == 1


def test_half_written_entry_of_a_worker_that_died_is_not_shown(recorder: Recorder) -> None:
    """Whoever was killed while writing over the oldest entry has left a mixture, which nobody
    counts."""
    write(recorder, 0, CAPACITY + 10)
    recorder.pointer.faults[10].addr = 0xDEAD
    assert numbers(all_of(recorder.faults)) == list(range(11, CAPACITY + 10))


def test_what_is_overwritten_between_two_looks_is_left_out(recorder: Recorder) -> None:
    """A reader who takes his time misses entries, and gets none that is not what it should be."""
    write(recorder, 0, CAPACITY)
    reading = recorder.faults.read()
    seen = numbers(next(reading))
    assert seen == list(range(1, 1 + len(seen)))
    write(recorder, CAPACITY, CAPACITY + 10000)
    assert numbers(next(reading)) == []
    later = [number for faults in reading for number in numbers(faults)]
    assert later == list(range(10001, CAPACITY))


def test_entry_that_is_none_is_left_out(recorder: Recorder) -> None:
    """Memory that was damaged is not shown as a fault, and hides no other."""
    write(recorder, 0, 10)
    recorder.pointer.faults[3].kind = lib.LPD_NR_FAULT_KINDS
    recorder.pointer.faults[5].outcome = 0
    assert numbers(all_of(recorder.faults)) == [0, 1, 2, 4, 6, 7, 8, 9]


@pytest.mark.parametrize("field", ["magic", "version"])
def test_foreign_recorder_is_refused(recorder: Recorder, field: str) -> None:
    """What another version has written is not read; its descriptor stays the caller's."""
    setattr(recorder.pointer, field, getattr(recorder.pointer, field) + 1)
    with pytest.raises(SessionError, match="none that we can read"):
        Recorder.take_over(recorder.fd)


def test_recorder_without_a_size_is_refused() -> None:
    """Whoever was killed while making one has left an empty memfd."""
    fd = os.memfd_create("empty")
    with pytest.raises(SessionError, match="of 0 bytes"):
        Recorder.take_over(fd)
    os.close(fd)


async def test_worker_goes_on_in_the_recorder_of_its_number() -> None:
    """An engine with fewer workers than before still reads what the others did, and gives no
    number of a session again."""
    left = [Recorder.create(number) for number in (10, 0)]
    write(left[0], 0, 20)
    left[0].last_session = 41
    engine = Engine(nr_workers=2)
    engine.start(left)
    try:
        assert [recorder.number for recorder in engine.recorders] == [0, 1, 10]
        assert engine.workers[0].recorder is left[1]
        assert len(all_of(engine.recorders[2].faults)) == 20
        assert engine.next_session_id() == 42
        assert {recorder.last_session for recorder in engine.recorders} == {42}
    finally:
        await engine.stop()


@pytest.mark.uffd
async def test_faults_are_on_record(bed: Bed) -> None:
    """Of each fault it says whose it was, where, what it took and from where in which file."""
    victim, image = bed.serve([(0, 64)], [(0, 8), (16, 16)])
    await check(victim, image, 0, 64)
    [recorder] = bed.engine.recorders
    await bed.until(lambda: recorder.faults.nr_written == 64, "64 faults on record")
    faults = all_of(recorder.faults)
    assert [each.addr for each in faults] == [at(page) for page in range(64)]
    assert {each.session for each in faults} == {bed.session.id}
    assert [each.time_ns for each in faults] == sorted(each.time_ns for each in faults)
    assert all(each.latency_ns > 0 and each.tries == 1 for each in faults)
    assert {each.outcome for each in faults} == {"filled"}
    # The file has the last run first.
    assert [(each.kind, each.source, each.offset // PAGE_SIZE) for each in faults] == [
        *[("image", 0, 16 + page) for page in range(8)],
        *[("zero", None, 0)] * 8,
        *[("image", 0, page) for page in range(16)],
        *[("zero", None, 0)] * 32,
    ]


def lengths(steps: list[Step], kind: StepKind) -> int:
    """Return how many pages steps of that kind have."""
    return sum(step.len for step in steps if step.kind == kind) // PAGE_SIZE


@pytest.mark.uffd
async def test_steps_are_on_record(bed: Bed) -> None:
    """So is what was filled unasked, and what the process did to its memory."""
    victim, image = bed.serve([(0, 512)], [(0, 512)])
    await check(victim, image, 300)
    await victim.discard(at(0), 4)
    await victim.munmap(at(4), 2)
    await victim.move(at(8), 8, at(600))
    await victim.fork()
    await bed.release()
    child = bed.restore.sessions[1]
    steps = all_of(bed.engine.recorders[0].steps, {bed.session.id})
    events = [(each.kind, each.addr, each.len, each.to, each.child) for each in steps[:4]]
    assert events == [
        ("remove", at(0), 4 * PAGE_SIZE, 0, 0),
        ("unmap", at(4), 2 * PAGE_SIZE, 0, 0),
        ("remap", at(8), 8 * PAGE_SIZE, at(600), 0),
        ("fork", 0, 0, 0, child.id),
    ]
    assert lengths(steps, StepKind.NEIGHBOUR) == bed.counters.pages_neighbour == 15
    assert lengths(steps, StepKind.DRAIN) == bed.counters.pages_drain
    assert child.id > bed.session.id


@pytest.mark.uffd
async def test_what_a_retry_fills_beyond_its_page_is_on_record(refusal: Refusal, bed: Bed) -> None:
    """A fill that was waited for long takes more with it, which nobody has asked for."""
    victim, image = bed.victim((0, 64)), bed.image((0, 64))
    refusal.set_in()
    bed.attach(victim, image)
    victim.begin_reading(at(0))
    await bed.until(lambda: refusal.nr_refused > 3, "attempts")
    refusal.lift()
    assert await victim.end_reading() == image.bytes(at(0), 1)
    await bed.until_counted(nr_missing=0)
    [recorder] = bed.engine.recorders
    await bed.until(lambda: recorder.faults.nr_written == 1, "a fault on record")
    [fault] = all_of(recorder.faults)
    assert (fault.kind, fault.outcome) == ("retry", "filled")
    assert fault.tries > 3
    assert lengths(all_of(recorder.steps), StepKind.NEIGHBOUR) == 63


@pytest.mark.uffd
async def test_ring_is_read_exactly_while_it_is_overwritten(bed: Bed) -> None:
    """While a worker writes over the oldest entries, a reader who begins with them gets none that
    is neither the old one nor the new."""
    nr_pages = 20000
    [recorder] = bed.engine.recorders
    write(recorder, 0, CAPACITY)
    victim, _ = bed.serve([(0, nr_pages)], [])
    victim.begin_aside("write", at(0), nr_pages * PAGE_SIZE, 1)
    while recorder.faults.nr_written < CAPACITY + nr_pages:
        for faults in recorder.faults.read():
            new = [each for each in faults if each.session == bed.session.id]
            assert {(each.kind, each.offset, each.tries) for each in new} <= {("zero", 0, 1)}
            assert all(at(0) <= each.addr < at(nr_pages) < each.time_ns for each in new)
            numbers([each for each in faults if each.session in (SESSION, SESSION + 1)])
            assert [each.time_ns for each in faults] == sorted(each.time_ns for each in faults)
            break
    await victim.end_aside()
    assert len(all_of(recorder.faults, {bed.session.id})) == nr_pages
