"""The sessions of one hand-off: what is released, given up or waited for together."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import os
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from lazypagesd.engine import restore as restore_module
from lazypagesd.engine.session import End
from tests.engine.bed import Bed, check, check_zero

pytestmark = pytest.mark.uffd


async def is_over(bed: Bed) -> bool:
    """Say whether wait_ended() has no more to wait for."""
    waiting = asyncio.ensure_future(bed.restore.wait_ended())
    await asyncio.sleep(0)
    over = waiting.done()
    waiting.cancel()
    return over


async def test_restore_without_sessions_ends_at_the_release(bed: Bed) -> None:
    """A restore to which nothing was handed over ends with its release, not before."""
    assert not await is_over(bed)
    bed.restore.release()
    assert await is_over(bed)


async def test_restore_ends_with_its_last_session(bed: Bed) -> None:
    """Each session that is left has to end first."""
    first, _ = bed.serve([(0, 16)], [(0, 16)])
    second, second_image = bed.serve([(0, 16)], [(0, 8)])
    bed.engine.abandon(bed.session)
    await bed.until_ended(bed.session, End.ABANDONED)
    assert not await is_over(bed)
    assert bed.restore.live == [bed.roots[1]]
    assert bed.restore.nr_missing == 8
    bed.restore.release()
    await bed.restore.wait_ended()
    assert bed.roots[1].end is End.DRAINED
    assert bed.restore.live == []
    assert bed.restore.nr_missing == 0
    await check(second, second_image, 0, 16)
    await check_zero(first, 0, 16)


def nr_calls(act: Callable[[], object]) -> int:
    """Return how many functions *act* calls, and those call."""
    count = 0

    def note(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    # Whoever wants to know when garbage is collected (hypothesis does) is called as well.
    gc.disable()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


async def test_session_costs_no_more_beside_others(bed: Bed) -> None:
    """What is done for a session when it comes does not grow with the number of others."""
    victims = [(bed.victim((0, 16)), bed.image((0, 16))) for _ in range(30)]
    taken = [nr_calls(functools.partial(bed.attach, *each)) for each in victims]
    assert taken[-1] <= taken[2]


async def test_failed_restore_answers_faults_until_its_processes_end(bed: Bed) -> None:
    """After a failure nothing is drained and no thread reads zeros; the end of the process is the
    end of the restore."""
    victim, image = bed.victim((0, 16)), bed.image((0, 16))
    bed.attach(victim, image, pidfd=True)
    bed.restore.fail()
    await check(victim, image, 5)
    assert not await is_over(bed)
    await bed.until(lambda: bed.restore.nr_missing == 15, "page 5")
    victim.kill()
    await bed.restore.wait_ended()
    assert bed.session.end is End.GONE


async def test_failed_restore_without_processes_is_over(bed: Bed) -> None:
    """There is nothing to wait for if it failed before anything was handed over."""
    bed.restore.fail()
    assert await is_over(bed)


async def test_abandoned_restore_gives_up_all_sessions(bed: Bed) -> None:
    """Each session is given up, whatever it misses."""
    victims = [bed.serve([(0, 16)], [(0, 16)])[0] for _ in range(3)]
    bed.restore.abandon()
    await bed.restore.wait_ended()
    assert [session.end for session in bed.restore.sessions] == [End.ABANDONED] * 3
    for victim in victims:
        await check_zero(victim, 0, 16)


async def test_child_that_comes_after_the_release_is_drained(bed: Bed) -> None:
    """A child of a process that is released is released as well."""
    victim, image = bed.serve([(0, 16384)], [(0, 16384)])
    bed.restore.release()
    child = await victim.fork()
    await bed.restore.wait_ended()
    await check(child, image, 16000, 384)
    assert {session.end for session in bed.restore.sessions} == {End.DRAINED}


class Exhausted:
    """Stands in for os.memfd_create(): no descriptor is left, until `mend`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, retry_s: float) -> None:
        self._create = os.memfd_create
        self._broken = False
        monkeypatch.setattr(os, "memfd_create", self)
        monkeypatch.setattr(restore_module, "FORK_RETRY_S", retry_s)

    def __call__(self, name: str, flags: int) -> int:
        if self._broken:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._create(name, flags)

    def set_in(self) -> None:
        self._broken = True

    def mend(self) -> None:
        self._broken = False


async def test_fork_that_cannot_be_served_waits(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the child can have no session, it and its parent wait until it can; no byte is
    wrong."""
    exhausted = Exhausted(monkeypatch, 0.01)
    victim, image = bed.serve([(0, 64)], [(0, 64)])
    exhausted.set_in()
    child = await victim.fork()
    await bed.until(lambda: len(bed.delays) > 1, "a second attempt")
    assert getattr(bed.delays[0], "errno", None) == errno.EMFILE
    reading = asyncio.create_task(check(child, image, 0, 64))
    assert len(bed.restore.sessions) == 1
    exhausted.mend()
    await reading
    assert bed.restore.sessions[1].name == "victim-0.1"
    await check(victim, image, 0, 64)
    await bed.release()


async def test_parent_that_is_gone_before_its_fork_is_served(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that waits for its session gets it, though its parent's is over meanwhile."""
    exhausted = Exhausted(monkeypatch, 0.01)
    victim, image = bed.victim((0, 64)), bed.image((0, 64))
    bed.attach(victim, image, pidfd=True)
    exhausted.set_in()
    child = await victim.fork()
    await bed.until(lambda: len(bed.delays) > 0, "a first attempt")
    victim.kill()
    await bed.until(lambda: bed.session.end is not None, "end of the parent")
    nr_delays = len(bed.delays)
    await bed.until(lambda: len(bed.delays) > nr_delays, "a further attempt")
    exhausted.mend()
    await check(child, image, 0, 64)
    await bed.until_ended(bed.session, End.GONE)


async def test_fork_that_waits_does_not_keep_the_restore_from_being_abandoned(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once given up, a child that waits for its session gets none, and nothing is left of it."""
    exhausted = Exhausted(monkeypatch, 0.01)
    victim, _ = bed.serve([(0, 64)], [(0, 64)])
    exhausted.set_in()
    child = await victim.fork()
    await bed.until(lambda: len(bed.delays) > 0, "a first attempt")
    bed.restore.abandon()
    await bed.restore.wait_ended()
    assert len(bed.restore.sessions) == 1
    await check_zero(child, 0, 64)


async def test_restore_that_is_abandoned_takes_no_more_children(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that is given up when the parent is gone, and its child still waits."""
    exhausted = Exhausted(monkeypatch, 0.01)
    victim, image = bed.victim((0, 64)), bed.image((0, 64))
    bed.attach(victim, image, pidfd=True)
    exhausted.set_in()
    child = await victim.fork()
    await bed.until(lambda: len(bed.delays) > 0, "a first attempt")
    victim.kill()
    await bed.until(lambda: bed.session.end is not None, "end of the parent")
    bed.restore.abandon()
    exhausted.mend()
    async with asyncio.timeout(10):
        await bed.restore.wait_ended()
    assert bed.restore.sessions == [bed.session]
    await check_zero(child, 0, 64)
