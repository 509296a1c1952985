"""A daemon that is killed between any two steps of a hand-off is followed by one that goes on: the
restore tool notices nothing, and no process sees a wrong page, or waits for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.conftest import NR_PAGES
from tests.service.conftest import Stage as CriuStage
from tests.service.crashing import crashing_command
from tests.service.daemon import members, wait_until
from tests.service.handing_over import (
    KeptServer,
    await_criu,
    hand_over,
    hand_over_to_criu,
    restore_by_criu,
)
from tests.service.manager import Manager, Numbered
from tests.service.serving import opening
from tests.service.stage import Stage
from tests.support.victim import victim_program

__all__ = ["victim_program"]

pytestmark = pytest.mark.uffd

ENGINE, SERVICE = "lazypagesd.engine", "lazypagesd.service"

# Of every hand-off.
COMMON = (
    f"{SERVICE}.restores:Restores._accept before 1",
    f"{SERVICE}.restores:Restores.begin before 1",
    f"{ENGINE}.restore_record:RestoreRecord.create before 1",
    f"{ENGINE}.restore_record:RestoreRecord.save before 1",
    f"{ENGINE}.restore_record:RestoreRecord.create after 1",
    f"{ENGINE}.restore:Restore.add before 1",
    f"{ENGINE}.state:State._empty after 1",
    f"{ENGINE}.state:State.create after 1",
    f"{ENGINE}.restore:Restore._keep after 1",
    f"{ENGINE}.restore:Restore._attach after 1",
    f"{ENGINE}.restore_record:RestoreRecord.save after 2",
    "lazypagesd.kernel.fdpass:consume after 1",
    "lazypagesd.kernel.fdpass:consume after 2",
    f"{ENGINE}.restore:Restore.release before 1",
    f"{ENGINE}.restore:Restore.release after 1",
    f"{ENGINE}.engine:Engine._close before 1",
    f"{ENGINE}.engine:Engine._close after 1",
    f"{ENGINE}.state:State.close before 1",
    f"{ENGINE}.state:State.close after 1",
    f"{ENGINE}.restore_record:RestoreRecord.give_up before 1",
    f"{ENGINE}.restore_record:RestoreRecord.give_up after 1",
    f"{ENGINE}.restore:Restore.let_go before 1",
    f"{ENGINE}.restore:Restore.let_go after 1",
)
NATIVE = (
    f"{SERVICE}.native_handoff:NativeHandoff._send before 1",
    f"{SERVICE}.native_handoff:NativeHandoff._send after 2",
    f"{SERVICE}.native_handoff:NativeHandoff._send before 3",
    f"{ENGINE}.restore:Restore._adopt before 1",
    f"{ENGINE}.state:State.fork after 1",
    f"{ENGINE}.restore:Restore._keep after 2",
    f"{ENGINE}.state:State.disown before 1",
    f"{ENGINE}.state:State.disown after 1",
    f"{ENGINE}.restore:Restore.set_pace before 1",
    f"{ENGINE}.restore:Restore.set_pace after 1",
)
CRIU = (
    "lazypagesd.handoff.criu:note before 1",
    "lazypagesd.handoff.criu:note after 1",
    "lazypagesd.handoff.criu:note after 3",
    "lazypagesd.handoff.criu:check_end before 1",
)
# A daemon that goes on, and dies in turn.
SUCCESSORS = tuple(
    f"{ENGINE}.restore:Restore._attach after 1; {point}"
    for point in (
        f"{SERVICE}.inherited:take after 1",
        f"{SERVICE}.succession:estate_of after 1",
        f"{SERVICE}.restores:Restores._take_over before 1",
        f"{SERVICE}.restores:Restores._take_over after 1",
    )
)


def function_of(point: str) -> str:
    """Return what a test of *point* is called."""
    return point.rpartition(":")[2].replace(" ", "-")


@pytest.fixture
def native(tmp_path: Path, victim_program: Path) -> Iterator[Stage]:
    """A stage for victims."""
    with ExitStack() as stack:
        yield Stage(tmp_path, victim_program, stack)


@pytest.fixture
def crashes(tmp_path: Path) -> Path:
    """What daemons that have died are noted in."""
    return tmp_path / "crashes"


def nr_lines(path: Path) -> int:
    """Return how many lines there are."""
    return len(path.read_text().splitlines()) if path.exists() else 0


def nr_of(points: str) -> int:
    """Return how many daemons die."""
    return points.count(";") + 1


def check_log(log: str, crashes: Path, points: str) -> None:
    """See that the daemon has died as often as it was to, and nobody was told of anything bad."""
    # It may have done all that one can see, and die a moment later.
    wait_until(
        lambda: nr_lines(crashes) == nr_of(points),
        lambda: f"{nr_of(points)} daemons to die, not {nr_lines(crashes)}: {log}",
    )
    assert "Error" not in log


# The service manager's: what it does not keep of itself has to be stored, and dropped.
MANAGED = (
    f"{SERVICE}.custody:ManagerCustody.keep before 1",
    f"{SERVICE}.custody:ManagerCustody.keep after 1",
    f"{SERVICE}.custody:ManagerCustody.keep after 2",
    f"{SERVICE}.custody:ManagerCustody.keep before 3",
    f"{SERVICE}.custody:ManagerCustody.keep after 3",
    f"{SERVICE}.custody:ManagerCustody.drop before 1",
    f"{SERVICE}.custody:ManagerCustody.drop after 1",
    f"{SERVICE}.custody:ManagerCustody.drop after 2",
    f"{SERVICE}.custody:ManagerCustody.drop before 3",
    f"{ENGINE}.restore:Restore.release after 1",
    f"{ENGINE}.restore:Restore.let_go before 1",
    f"{ENGINE}.restore:Restore.let_go after 1",
)


@pytest.mark.parametrize("points", [*MANAGED, *NATIVE, *SUCCESSORS], ids=function_of)
def test_native_hand_off_with_a_manager(native: Stage, crashes: Path, points: str) -> None:
    """A service manager that keeps descriptors starts the next daemon, which drops them all when
    it is done."""
    restored = native.restored()
    with ExitStack() as stack:
        manager = Manager(native.directory, command=crashing_command(points, crashes))
        stack.callback(manager.close)
        stack.enter_context(manager.following())
        hand_over(manager.client(), restored)
        manager.wait_for_nothing_stored()
        check_log(manager.log, crashes, points)


@pytest.mark.parametrize("points", [*COMMON, *NATIVE, *SUCCESSORS], ids=function_of)
def test_native_hand_off_with_a_keeper(native: Stage, crashes: Path, points: str) -> None:
    """A keeper alone starts the next daemon."""
    restored = native.restored()
    with ExitStack() as stack:
        server = KeptServer(native.directory, crashing_command(points, crashes))
        stack.callback(server.close)
        hand_over(server.client(), restored)
        # Which need not have happened yet, for nobody waits for it.
        wait_until(lambda: nr_lines(crashes) == nr_of(points), lambda: f"its end: {server.log}")
        server.client().do(opening())
        check_log(server.log, crashes, points)


@pytest.mark.parametrize("points", [*COMMON, *CRIU, *SUCCESSORS], ids=function_of)
def test_hand_off_by_criu(stage: CriuStage, crashes: Path, points: str) -> None:
    """The drop-in's keeper starts the next daemon, which ends as the first would have."""
    stage.checkpoint({7: NR_PAGES, 8: NR_PAGES}, {5})
    daemon = stage.start("-v", keeper=True, command=crashing_command(points, crashes))
    daemon.wait_ready()
    restore_by_criu(stage)
    wait_until(
        lambda: daemon.process.poll() is not None and not members(daemon.process.pid),
        lambda: f"their end: {daemon.log}",
    )
    check_log(daemon.log, crashes, points)


LISTENING = (
    f"{SERVICE}.restores:Restores.begin after 1",
    f"{SERVICE}.native_handoff:NativeHandoff._note after 1",
    f"{SERVICE}.native_handoff:NativeHandoff._listen after 1",
    f"{SERVICE}.native_handoff:NativeHandoff._note after 2",
    f"{SERVICE}.native_handoff:NativeHandoff._accept_criu before 1",
    f"{ENGINE}.restore_record:RestoreRecord.give_up before 1",
    f"{ENGINE}.restore_record:RestoreRecord.give_up after 1",
    f"{ENGINE}.restore:Restore.add after 1",
    f"{ENGINE}.restore:Restore.release after 1",
)


@pytest.mark.parametrize("points", LISTENING, ids=function_of)
def test_hand_off_by_criu_to_the_service(stage: CriuStage, crashes: Path, points: str) -> None:
    """So it is where CRIU connects to a socket that a client has handed over."""
    with ExitStack() as stack:
        manager = Manager(stage.work, command=crashing_command(points, crashes))
        stack.callback(manager.close)
        stack.enter_context(manager.following())
        hand_over_to_criu(manager.client(), stage)
        manager.wait_for_nothing_stored()
        check_log(manager.log, crashes, points)


def test_connection_that_may_be_of_either_is_of_none(
    stage: CriuStage, crashes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was accepted, and not noted, at a socket whose address another one has as
    well is told of: its processes wait, rather than that they read the pages of others."""
    points = f"{ENGINE}.restore_record:RestoreRecord.give_up before 1"
    with ExitStack() as stack:
        manager = Manager(stage.work, command=crashing_command(points, crashes))
        stack.callback(manager.close)
        stack.enter_context(manager.following())
        for directory in (stage.images, stage.work):
            monkeypatch.chdir(directory)
            await_criu(Numbered(manager.client()), stage.images, Path("lazy-pages.socket"))
        restorer = stage.restorer("connect")
        restorer.do("pid 7", "descriptor 7", f"register 7 {NR_PAGES}")
        restorer.begin_read(7, 3)
        manager.wait_for_log("a connection by criu is that of one of these: restore .*, restore")
        manager.wait_ready(2)
        assert restorer.waits()
