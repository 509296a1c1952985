"""What the kernel says of what the machine is short of."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazypagesd.kernel.pressure import DIRECTORY, parse_some_avg10, read_worst

# cat /proc/pressure/io, Linux 6.18
IO = """\
some avg10=1.91 avg60=1.79 avg300=1.86 total=214730061
full avg10=0.79 avg60=0.88 avg300=1.10 total=103662387
"""


def test_average_of_ten_seconds_is_found() -> None:
    """It is that of the line that begins with some."""
    assert parse_some_avg10(IO) == 1.91


@pytest.mark.parametrize("text", ["", "full avg10=0.79\n", "some avg60=1.79\n", "some\n"])
def test_text_without_it_is_refused(text: str) -> None:
    """What is not there is not taken for no pressure."""
    with pytest.raises(ValueError, match="has no average of ten seconds"):
        parse_some_avg10(text)


@pytest.mark.parametrize(("memory", "io"), [("9.50", "0.00"), ("0.00", "9.50")])
def test_worst_of_memory_and_io_counts(tmp_path: Path, memory: str, io: str) -> None:
    """It is enough to be short of one of them."""
    for name, percent in ("memory", memory), ("io", io):
        (tmp_path / name).write_text(f"some avg10={percent} avg60=0.00 avg300=0.00 total=1\n")
    assert read_worst(tmp_path) == 9.5


def test_kernel_that_does_not_tell_is_under_no_pressure(tmp_path: Path) -> None:
    """Without the files nobody is ever slowed down."""
    assert read_worst(tmp_path) == 0.0


@pytest.mark.skipif(not (DIRECTORY / "memory").exists(), reason="kernel without CONFIG_PSI")
def test_this_kernel_is_understood() -> None:
    """Its own files are read, whatever they say."""
    assert 0.0 <= read_worst() <= 100.0
