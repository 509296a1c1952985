"""Give each test of the engine a loop and a bed."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lazypagesd.engine.worker import Worker
from lazypagesd.native import lib
from tests.engine.bed import Bed
from tests.support.refusal import Refusal
from tests.support.victim import victim_program

if TYPE_CHECKING:
    from lazypagesd.native._native import CData

__all__ = ["victim_program"]

DEADLINE_S = 40.0


@pytest.fixture
def bed(victim_program: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Bed:
    """Return a bed, which is made before the test and unmade after it, in the test's loop; it has
    one worker, or as many as the test's parameter says."""
    return Bed(victim_program, tmp_path, getattr(request, "param", 1))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine, within its bed."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(_run(pyfuncitem, arguments))
    return True


async def _run(pyfuncitem: pytest.Function, arguments: dict[str, object]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for argument in arguments.values():
            if isinstance(argument, Bed):
                await stack.enter_async_context(argument)
        async with asyncio.timeout(DEADLINE_S):
            await pyfuncitem.obj(**arguments)


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusal]:
    """Let this process be asked about every fill of the workers.  Comes before the bed."""
    spawn = Worker._spawn

    with Refusal() as refusal:

        def spawn_asking(worker: Worker, what: str, run: Callable[[CData], int]) -> None:
            if run is lib.lpd_worker_run:
                spawn(worker, what, lambda pointer: refusal.run(lambda: run(pointer)))
            else:
                spawn(worker, what, run)

        monkeypatch.setattr(Worker, "_spawn", spawn_asking)
        yield refusal
