"""Saying that a restore may connect."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lazypagesd.errors import ConfigError
from lazypagesd.service.ready import report_ready

Script = Callable[[str, str], str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Return a function that writes an executable shell script."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def output(tmp_path: Path) -> Iterator[int]:
    """Return a descriptor for what scripts print."""
    fd = os.open(tmp_path / "output", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    yield fd
    os.close(fd)


@pytest.fixture
def images() -> Iterator[int]:
    """Return a descriptor of an images directory."""
    fd = os.open("/", os.O_PATH)
    yield fd
    os.close(fd)


def printed(output: int) -> list[str]:
    """Return the lines that the scripts have printed."""
    return os.pread(output, 4096, 0).decode().splitlines()


def test_status_is_one_zero_byte(images: int, output: int) -> None:
    """The reader gets it, and then the end of the file."""
    hear, says = os.pipe()
    report_ready(action_scripts=[], images_fd=images, status_fd=says, output_fd=output)
    with os.fdopen(hear, "rb") as pipe:
        assert pipe.read() == b"\0"


def test_script_finds_what_criu_tells_it(script: Script, images: int, output: int) -> None:
    """The action and the images' directory are in its environment, and its input is empty."""
    path = script("a", 'echo "$CRTOOLS_SCRIPT_ACTION $CRTOOLS_IMAGE_DIR $#"; cat')
    report_ready(action_scripts=[path], images_fd=images, status_fd=None, output_fd=output)
    assert printed(output) == [f"status-ready /proc/{os.getpid()}/fd/{images} 0"]


def test_last_script_runs_first(script: Script, images: int, output: int) -> None:
    """Scripts run in criu's order."""
    scripts = [script("first", "echo first"), script("second", "echo second")]
    report_ready(action_scripts=scripts, images_fd=images, status_fd=None, output_fd=output)
    assert printed(output) == ["second", "first"]


def test_failed_script_withholds_the_status(script: Script, images: int, output: int) -> None:
    """Every failure is named, the other scripts run, and the reader gets nothing."""
    hear, says = os.pipe()
    bad = script("bad", "exit 3")
    killed = script("killed", "kill -9 $$")
    missing = "/nonexistent/script"
    good = script("good", "echo good")
    with pytest.raises(ConfigError) as failure:
        report_ready(
            action_scripts=[good, bad, killed, missing],
            images_fd=images,
            status_fd=says,
            output_fd=output,
        )
    os.close(says)
    with os.fdopen(hear, "rb") as pipe:
        assert pipe.read() == b""
    assert printed(output) == ["good"]
    assert str(failure.value) == (
        f"action script {missing}: cannot be run (No such file or directory);"
        f" {killed}: killed by signal 9; {bad}: exited with status 3"
    )


def test_bad_status_descriptor_is_named(images: int, output: int) -> None:
    """A descriptor that is not open is an error that says which option gave it."""
    with pytest.raises(OSError, match="Bad file descriptor: '--status-fd 999'"):
        report_ready(action_scripts=[], images_fd=images, status_fd=999, output_fd=output)
