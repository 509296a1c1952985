"""A daemon that is killed in the middle of a round is followed by one that finishes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.sanitizers import Interpreter
from tests.torture.rounds import CRASHED, Settings, compile_torture, run_until

# The first test waits until a copy has been built.
pytestmark = [pytest.mark.uffd, pytest.mark.timeout(300)]

# All but guards, of which nobody tells: what was filled and not noted is filled in their place, by
# whoever takes over (docs/explanation/correctness.md).
NO_GUARDS = "nuomgsydfkalpPXcwrW|FKRVC"

# So slow that pages are missing to its end.
ROUND = Settings(seconds=0.4, nr_threads=4, size_mib=64, pace="32M")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The process that tortures."""
    return compile_torture(tmp_path_factory.mktemp("torture"))


@pytest.mark.parametrize(
    "crash",
    [
        "read:1",
        "read:100",
        "arranged:20",
        "event:1",
        "event:50",
        "counted:50",
        "removed:10",
        "unmapped:10",
        "reordered:2",
        "copied:1",
        "copied:100",
        "zeroed:20",
        "cleared:30",
        "forked:1",
        "forked:2",
        "resumed:1",
        "resumed:2",
    ],
)
def test_round_is_finished_wherever_it_was(
    program: Path, tmp_path: Path, crashing: Interpreter, crash: str
) -> None:
    """Processes that fork, move, unmap, discard and fault find every page right though the daemon
    was killed at that point of a round."""
    operations = NO_GUARDS if crash.startswith("copied") else ""
    settings = replace(ROUND, crash=crash, operations=operations)
    check(program, tmp_path / "round", crashing, settings)


@pytest.mark.parametrize(
    "crash", ["half-moved:10", "moved:1", "moved:20", "clearing:3", "clearing:20"]
)
def test_move_takes_place_once(
    program: Path, tmp_path: Path, crashing: Interpreter, crash: str
) -> None:
    """So do processes that do little but move pages, which must not be done twice."""
    settings = replace(ROUND, crash=crash, operations="moc")
    check(program, tmp_path / "round", crashing, settings)


def check(program: Path, directory: Path, interpreter: Interpreter, settings: Settings) -> None:
    """Run a round in which the daemon dies, and see that nothing else is wrong with it."""
    crashed = directory / CRASHED
    result = run_until(lambda _: crashed.exists(), program, directory, 1, settings, interpreter)
    assert crashed.exists()
    assert not result.finding, result.finding
    assert result.nr_takeovers == 1
