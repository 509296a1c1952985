"""The command line and configuration file of ``lazypagesd serve``."""

from __future__ import annotations

import argparse
import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from lazypagesd.errors import ConfigError
from lazypagesd.service.options import WARNINGS, ServeLimits, ServeOptions

DEFAULT_CONFIG = Path("/etc/lazypagesd.toml")
DEFAULT_RUNTIME_DIR = "/run/lazypagesd"
TABLE = "limits"
NUMBER_MAX = 2**31 - 1


class Parser(argparse.ArgumentParser):
    """One that raises ConfigError where others print and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise."""
        raise ConfigError(message)


def read_options(words: Sequence[str], environment: Mapping[str, str]) -> ServeOptions:
    """Return what *words*, behind ``serve``, and the configuration ask for, or raise
    ConfigError."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runtime-dir", metavar="DIR", type=Path)
    parser.add_argument("--config", metavar="FILE", type=Path)
    parser.add_argument("-v", "--verbose", action="count", default=0)
    given = parser.parse_args(words)
    # systemd gives a list where a unit has more than one.
    default = environment.get("RUNTIME_DIRECTORY", "").split(":")[0] or DEFAULT_RUNTIME_DIR
    return ServeOptions(
        runtime_dir=given.runtime_dir or Path(default),
        verbosity=WARNINGS + given.verbose,
        limits=read_limits(given.config),
    )


def read_limits(path: Path | None) -> ServeLimits:
    """Return what the file *path* says; without one, what the default file says, if it is
    there."""
    try:
        text = (path or DEFAULT_CONFIG).read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is None:
            return ServeLimits()
        raise
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path or DEFAULT_CONFIG}: is no text ({error.reason})") from None
    return parse_limits(text, str(path or DEFAULT_CONFIG))


def parse_limits(text: str, name: str) -> ServeLimits:
    """Return what *text*, of the file *name*, says."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: {error}") from None  # which names the line
    for key in tables.keys() - {TABLE}:
        raise ConfigError(f"{name}: {key}: no such table or key; the one there is: [{TABLE}]")
    table = tables.get(TABLE, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: {TABLE}: is no table: write [{TABLE}]")
    known = [field.name for field in dataclasses.fields(ServeLimits)]
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{name}: {TABLE}.{key}: no such key; there are {', '.join(known)}")
        if type(value) is not int or not 0 < value <= NUMBER_MAX:
            raise ConfigError(f"{name}: {TABLE}.{key}: is no number from 1 on ({value!r})")
    return ServeLimits(**table)
