"""A program that runs in our place."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazypagesd.client.ctl.running import HeldSignals


@pytest.fixture(autouse=True)
def _started_from_a_terminal() -> Iterator[None]:
    """Ignore no signal, though whoever runs the tests (nohup, a job of a shell) may."""
    handlers = {n: signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)}
    handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("code", [0, 1, 77])
def test_exit_code_is_the_programs(code: int) -> None:
    """What the program ends with is returned."""
    with HeldSignals() as signals:
        assert signals.run(["sh", "-c", f"exit {code}"]) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_reaches_the_program(number: signal.Signals) -> None:
    """A signal waits for the program, which it ends, as a shell would say."""
    with HeldSignals() as signals:
        signal.raise_signal(number)
        assert signals.run(["sleep", "infinity"]) == 128 + number


def test_signal_without_a_program_does_what_it_does() -> None:
    """What was held in vain is an interrupt afterwards."""
    with pytest.raises(KeyboardInterrupt), HeldSignals() as signals:
        with pytest.raises(FileNotFoundError, match="/nowhere"):
            signals.run(["/nowhere"])
        signal.raise_signal(signal.SIGINT)


def test_signal_behind_the_program_does_what_it_does() -> None:
    """Nor is lost what comes when the program has ended."""
    with pytest.raises(KeyboardInterrupt), HeldSignals() as signals:
        assert signals.run(["true"]) == 0
        signal.raise_signal(signal.SIGINT)


def test_program_begins_as_from_a_shell(tmp_path: Path) -> None:
    """What we hold and what Python ignores does to it what it does to any program."""
    status = tmp_path / "status"
    with HeldSignals() as signals:
        assert signals.run(["sh", "-c", f"cat /proc/self/status >{status}"]) == 0
    assert mask_of(status, "SigBlk") == 0
    assert mask_of(status, "SigIgn") & bit(signal.SIGPIPE) == 0


def test_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """Under nohup, which ignores it, the program does not end at SIGHUP either."""
    status = tmp_path / "status"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with HeldSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.run(["sh", "-c", f"cat /proc/self/status >{status}"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert mask_of(status, "SigIgn") & bit(signal.SIGHUP)


def bit(number: signal.Signals) -> int:
    """Return what a signal is in a mask."""
    return 1 << (number - 1)


def mask_of(status: Path, name: str) -> int:
    """Return a mask of a copy of /proc/PID/status."""
    [line] = [line for line in status.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1], 16)
