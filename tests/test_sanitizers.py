"""The sanitizers find nothing in the C, tested or tortured, and what is wrong they do find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sanitizers import ADDRESS, THREAD, Interpreter, MissingRuntime, build_sanitized
from tests.torture.rounds import Settings, compile_torture, run_round

# The first to ask for a copy waits until it is built.
pytestmark = pytest.mark.timeout(600)

# What native.h forbids: memory that is too small or not aligned, and two writers at a time.
TOO_SMALL = """
from lazypagesd.native import ffi, lib
memory = ffi.new("uint8_t[]", ffi.offsetof("struct lpd_session", "troubles_taken"))
session = ffi.cast("struct lpd_session *", memory)
lib.lpd_session_take_trouble(session, ffi.new("struct lpd_trouble *"))
"""
NOT_ALIGNED = """
from lazypagesd.native import ffi, lib
from tests.native.states import Memory
memory = Memory(1)
lib.lpd_state_test(ffi.cast("struct lpd_state *", ffi.cast("char *", memory.pointer) + 1), 0)
"""
# At the same time, and again and again: the lock that Python takes around each call may happen to
# put them in order.
TWO_WRITERS = """
import threading
from lazypagesd.native import lib
from tests.native.states import BASE, Memory, Region
parent = Memory.of([Region(BASE, 100000, 0, 0)])
child = Memory(100000)
both = threading.Barrier(2)
def write():
    both.wait()
    for _ in range(3000):
        lib.lpd_state_fork(child.pointer, parent.pointer)
threads = [threading.Thread(target=write) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Interpreter]:
    """What runs the copies that have been built, by their sanitizers."""
    return {}


@pytest.fixture
def interpreter(
    request: pytest.FixtureRequest,
    copies: dict[str, Interpreter],
    tmp_path_factory: pytest.TempPathFactory,
) -> Interpreter:
    """What runs the copy with the sanitizers that are the test's parameter."""
    sanitizers: str = request.param
    if sanitizers not in copies:
        try:
            copies[sanitizers] = build_sanitized(sanitizers, tmp_path_factory.mktemp("sanitized"))
        except MissingRuntime as error:
            pytest.skip(str(error))
    return copies[sanitizers]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The process that tortures."""
    return compile_torture(tmp_path_factory.mktemp("torture"))


@pytest.mark.parametrize("interpreter", [ADDRESS], indirect=True)
def test_native_tests_pass_when_sanitized(interpreter: Interpreter) -> None:
    """The tests of native/ find no bad memory access and no undefined behaviour."""
    interpreter.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/native")


@pytest.mark.uffd
@pytest.mark.parametrize(
    ("interpreter", "seed", "settings"),
    [
        pytest.param(ADDRESS, 1, Settings(seconds=1), id="addresses-dropin"),
        pytest.param(
            ADDRESS,
            2,
            Settings(seconds=1, nr_processes=2, nr_workers=2, cold=True),
            id="addresses-engine",
        ),
        pytest.param(
            THREAD, 3, Settings(seconds=1, nr_processes=3, nr_workers=2), id="threads-engine"
        ),
        pytest.param(
            THREAD,
            4,
            Settings(seconds=1, nr_threads=2, nr_processes=2, nr_workers=2, cold=True),
            id="threads-cold",
        ),
    ],
    indirect=["interpreter"],
)
def test_torture_when_sanitized(
    program: Path, tmp_path: Path, interpreter: Interpreter, seed: int, settings: Settings
) -> None:
    """Neither a bad access nor a race comes of processes that rearrange their memory."""
    result = run_round(program, tmp_path / "round", seed, settings, interpreter)
    assert not result.finding, result.finding
    assert result.nr_faults > 100


@pytest.mark.parametrize(
    ("interpreter", "mistake", "report"),
    [
        pytest.param(ADDRESS, TOO_SMALL, "heap-buffer-overflow", id="overflow"),
        pytest.param(ADDRESS, NOT_ALIGNED, "misaligned address", id="undefined"),
        pytest.param(THREAD, TWO_WRITERS, "data race", id="race"),
    ],
    indirect=["interpreter"],
)
def test_sanitizers_find_a_mistake(interpreter: Interpreter, mistake: str, report: str) -> None:
    """A caller that breaks the rules of native.h is found out, and the process fails."""
    with pytest.raises(AssertionError, match=report):
        interpreter.run("-c", mistake)
