"""The command lines of ``lazypagesd serve``, and of what is asked about it."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from lazypagesd.cli.serve_config import read_config
from lazypagesd.errors import ConfigError
from lazypagesd.service.options import WARNINGS, ServeOptions

DEFAULT_RUNTIME_DIR = "/run/lazypagesd"


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
    parser.add_argument("--no-keeper", action="store_true")
    parser.add_argument("-v", "--verbose", action="count", default=0)
    given = parser.parse_args(words)
    return ServeOptions(
        runtime_dir=given.runtime_dir or default_runtime_dir(environment),
        verbosity=WARNINGS + given.verbose,
        config=read_config(given.config),
        keeper=not given.no_keeper,
        reread=functools.partial(read_config, given.config),
    )


def read_runtime_dir(words: Sequence[str], environment: Mapping[str, str]) -> Path:
    """Return the daemon's directory that *words*, behind ``can-take-over``, mean, or raise
    ConfigError."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runtime-dir", metavar="DIR", type=Path)
    given = parser.parse_args(words).runtime_dir
    return Path(given) if given else default_runtime_dir(environment)


def default_runtime_dir(environment: Mapping[str, str]) -> Path:
    """Return the directory that is meant where none is named."""
    # systemd gives a list where a unit has more than one.
    return Path(environment.get("RUNTIME_DIRECTORY", "").split(":")[0] or DEFAULT_RUNTIME_DIR)
