"""The configuration file of ``lazypagesd serve``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lazypagesd.cli.serve_config import Reader, read_config
from lazypagesd.cli.serve_options import read_options
from lazypagesd.engine.worker import MAX_POLL_NS
from lazypagesd.errors import ConfigError
from lazypagesd.service.options import ServeConfig, ServeLimits


def test_configuration_is_read(tmp_path: Path) -> None:
    """What the file says counts, and the rest is as it was."""
    path = tmp_path / "file"
    path.write_text('group = "disk"\n[limits]\nrestores = 7\n')
    config = read_options(["--config", str(path)], {}).config
    assert config == ServeConfig("disk", dataclasses.replace(ServeLimits(), restores=7))
    assert Reader("file", "").read() == ServeConfig()


def test_workers_may_be_kept_from_polling() -> None:
    """The default is that of any worker, and none at all can be asked for."""
    assert ServeLimits().poll_us * 1000 == MAX_POLL_NS
    assert Reader("file", "[limits]\npoll_us = 0").read().limits.poll_us == 0


@pytest.mark.parametrize("text", ["unix:/run/x.socket", "127.0.0.1:9465", "[::1]:9465"])
def test_metrics_are_told_on_this_machine(text: str) -> None:
    """A unix socket, or an address of the loopback, as it was written."""
    config = Reader("file", f'metrics = "{text}"').read()
    assert str(config.metrics) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limits]\nrestores = = 1", r"file: .*\(at line 2, column 12\)"),
        ("\nx = 1", r"file: line 2: x: no such key or table; there are group, metrics"),
        ("[x]\n", r"file: line 1: x: no such key or table"),
        ("limits = 1", "file: line 1: limits: is no table"),
        ("group = 1", r"file: line 1: group: is no text \(1\)"),
        ("[limits]\nrestore = 1", "file: line 2: limits.restore: no such key; there are restores"),
        (
            "[limits]\n restores = 0",
            r"file: line 2: limits.restores: is no number from 1 on \(0\)",
        ),
        ("limits.restores = true", r"file: line 1: limits.restores: is no number .*\(True\)"),
        ('limits = {"regions" = 1.0}', r"file: line 1: limits.regions: is no number .*\(1.0\)"),
        ("limits . regions = 0", "file: line 1: limits.regions: is no number"),
        ("[limits.regions]", r"file: line 1: limits.regions: is no number from 1 on \({}\)"),
        ("[limits]\npoll_us = -1", r"file: line 2: limits.poll_us: is no number from 0 on \(-1\)"),
        ("# regions = 1\n[limits]\nregions = 0", "file: line 3: limits.regions: is no number"),
        ("[limits]\nsessions = 1\nsessions = 2\n", r"file: .*\(at line 3, column 13\)"),
        ("metrics = 1", "file: line 1: metrics: is neither unix:/PATH nor a loopback address"),
        ('metrics = "0.0.0.0:80"', r"file: line 1: metrics: is neither .*\('0.0.0.0:80'\)"),
        ('metrics = "127.0.0.1:0"', r"file: line 1: metrics: is neither .*\('127.0.0.1:0'\)"),
        ('metrics = "unix:x"', r"file: line 1: metrics: is neither .*\('unix:x'\)"),
        ('\ngroup = "no-such"', "file: line 2: group: 'no-such': no such group: make it"),
    ],
)
def test_wrong_configuration_is_refused(text: str, message: str) -> None:
    """An error names the file, the line and the key."""
    with pytest.raises(ConfigError, match=f"^{message}"):
        Reader("file", text).read()


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """It is named."""
    path = tmp_path / "file"
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is no text") as caught:
        read_config(path)
    assert str(path) in str(caught.value)
