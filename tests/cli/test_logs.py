"""The log, as criu's options ask for it."""

from __future__ import annotations

import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazypagesd.service.logs import open_log, start_log, stop_log
from lazypagesd.service.options import DropinOptions

log = logging.getLogger("lazypagesd.made_up")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    stop_log()


def say_everything() -> None:
    """Log one message of each level."""
    log.error("e")
    log.warning("w")
    log.info("i")
    log.debug("d")


@pytest.mark.parametrize(
    ("verbosity", "lines"),
    [
        (0, []),
        (1, ["Error: e"]),
        (2, ["Error: e", "Warn: w"]),
        (3, ["Error: e", "Warn: w", "i"]),
        (4, ["Error: e", "Warn: w", "i", "d"]),
        (5, ["Error: e", "Warn: w", "i", "d"]),
    ],
)
def test_verbosity_is_that_of_criu(
    verbosity: int, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each level adds what criu's adds, and timestamps come from 3 on."""
    start_log(verbosity=verbosity)
    say_everything()
    printed = capsys.readouterr().err.splitlines()
    stamp = r"\(\d{2,}\.\d{6}\) " if verbosity >= 3 else ""
    assert len(printed) == len(lines)
    for line, expected in zip(printed, lines, strict=True):
        assert re.fullmatch(stamp + expected, line)


def test_file_is_made_anew_for_its_owner(tmp_path: Path) -> None:
    """An old log is truncated; a new one has mode 0600."""
    file = tmp_path / "lazy.log"
    for _ in range(2):
        start_log(verbosity=2, file=str(file))
        log.error("e")
    assert file.read_text() == "Error: e\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_dash_is_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """``-o -`` logs to stdout."""
    start_log(verbosity=2, file="-")
    log.error("e")
    assert capsys.readouterr().out == "Error: e\n"


def test_failure_to_open_leaves_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log file that cannot be made is an OSError that can still be logged."""
    start_log(verbosity=2)
    with pytest.raises(FileNotFoundError):
        start_log(verbosity=2, file=str(tmp_path / "no/lazy.log"))
    log.error("e")
    assert capsys.readouterr().err == "Error: e\n"


def test_warnings_of_options_are_logged(tmp_path: Path) -> None:
    """What the options warned of is the first thing in the log that they ask for."""
    file = tmp_path / "lazy.log"
    open_log(DropinOptions(log_file=str(file), warnings=("--newer: ignoring",)))
    assert file.read_text() == "Warn: --newer: ignoring\n"
