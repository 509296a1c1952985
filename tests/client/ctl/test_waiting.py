"""What is shown while one waits."""

from __future__ import annotations

import contextlib
import io
import os
import pty

import pytest

from lazypagesd.client.ctl.waiting import showing
from lazypagesd.client.restore import Progress


def state(nr_pages: int, nr_missing: int, *, ended: bool = False) -> Progress:
    """Return a state of one process."""
    return Progress(
        ended=ended,
        nr_sessions=1,
        nr_live=0 if ended else 1,
        nr_pages=nr_pages,
        nr_missing=nr_missing,
    )


NOTHING = Progress(ended=False, nr_sessions=0, nr_live=0, nr_pages=0, nr_missing=0)


def lines(*states: Progress, name: str = "restore 1") -> list[str]:
    """Return what is shown of *states* where there is no terminal."""
    stream = io.StringIO()
    with showing(name, stream) as show:
        for each in states:
            show(each)
    return stream.getvalue().splitlines()


def test_lines_without_a_terminal() -> None:
    """One line says that it waits, one each tenth, one that all is in."""
    missing = (1024, 1000, 921, 900, 500, 499, 1)
    states = [state(1024, nr_missing) for nr_missing in missing]
    assert lines(NOTHING, NOTHING, *states, state(1024, 0, ended=True)) == [
        "restore 1: waiting for its restore tool",
        "restore 1: 0 % of 1024 pages (4.0 MiB)",
        "restore 1: 10 % of 1024 pages (4.0 MiB)",
        "restore 1: 51 % of 1024 pages (4.0 MiB)",
        "restore 1: 99 % of 1024 pages (4.0 MiB)",
        "restore 1: 100 % of 1024 pages (4.0 MiB)",
    ]


def test_criu_is_named() -> None:
    """Of a restore by CRIU one is told whom it waits for."""
    [line] = lines(NOTHING, name="restore 1 (criu)")
    assert line == "restore 1 (criu): waiting for criu restore"


def test_nothing_to_fill_is_all_of_it() -> None:
    """A restore without a lazy page is complete when it has ended."""
    assert lines(state(0, 0), state(0, 0, ended=True)) == [
        "restore 1: 0 % of 0 pages (0.0 MiB)",
        "restore 1: 100 % of 0 pages (0.0 MiB)",
    ]


def test_fork_that_makes_it_more_is_no_step_back() -> None:
    """Pages that a child has as well make no line, and no number that is negative."""
    states = [state(100, 50), state(200, 150), state(100, 101)]
    assert lines(*states) == ["restore 1: 50 % of 100 pages (0.4 MiB)"]


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it is a bar, with pages and bytes, that says before what it waits for."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    waiting = drawn(NOTHING)
    assert "restore 1 (criu): waiting for criu restore" in waiting
    assert "pages" not in waiting
    filling = drawn(state(1024, 512))
    assert "512/1024 pages" in filling
    assert "2.0/4.0 MiB" in filling
    assert "waiting" not in filling


def drawn(what: Progress) -> str:
    """Return what is drawn of *what* on a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream, showing("restore 1 (criu)", stream) as show:
        show(what)
    text = b""
    with os.fdopen(ours, "rb", buffering=0) as seen, contextlib.suppress(OSError):  # EIO: the end
        while piece := seen.read(1 << 16):
            text += piece
    return text.decode()
