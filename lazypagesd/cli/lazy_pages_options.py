"""From criu's options to what the drop-in is asked to do.

Whatever we cannot do is refused here, before a restore has handed anything over: a restore whose
daemon does not start fails cleanly, one whose daemon gives up later loses its memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lazypagesd.cli.criu_config import config_files, read_config
from lazypagesd.cli.criu_options import COMMAND, Parsed, Setting, parse_words
from lazypagesd.engine.pace import EAGER, Pace
from lazypagesd.errors import ConfigError
from lazypagesd.service.options import WARNINGS, DropinOptions

INT_MAX = 2**31 - 1  # criu's numbers, and descriptors, are ints
DEDUP_WARNING = "--auto-dedup: would punch holes into the images, which stay whole, ignoring"


def read_options(words: Sequence[str], environment: Mapping[str, str]) -> DropinOptions:
    """Return what *words* and the configuration files ask for, or raise ConfigError."""
    command_line = parse_words(words)
    check_command(command_line)
    sources = [read_config(path) for path in config_files(command_line, environment)]
    return build_options([*sources, command_line])


def check_command(command_line: Parsed) -> None:
    """Raise ConfigError unless the one operand is ``lazy-pages``."""
    match command_line.operands:
        case ["lazy-pages"]:
            return
        case []:
            raise ConfigError(f"no command given; the one there is: {COMMAND}")
        case ["lazy-pages", extra, *_]:
            raise ConfigError(f"{COMMAND}: takes options only ({extra!r})")
        case [other, *_]:
            raise ConfigError(f"{other}: no command of lazypagesd; the one there is: {COMMAND}")


def build_options(sources: Sequence[Parsed]) -> DropinOptions:
    """Return the options that *sources* say together; each overrides those before it."""
    settings = [setting for source in sources for setting in source.settings]
    warnings = [warning for source in sources for warning in source.warnings]
    # The last value of each; repeated ones are collected by those who want them all.
    last = {setting.name: setting for setting in settings}
    _refuse(last)
    if _is_on(last, "auto-dedup"):
        warnings.append(DEDUP_WARNING)
    images_dir = Path(_text(last, "images-dir") or ".")
    options = DropinOptions(
        images_dir=images_dir,
        work_dir=Path(_text(last, "work-dir") or images_dir),
        log_file=_text(last, "log-file") or None,
        verbosity=count_verbosity(settings),
        pidfile=_text(last, "pidfile") or None,
        status_fd=_number(last["status-fd"]) if "status-fd" in last else None,
        action_scripts=tuple(s.value or "" for s in settings if s.name == "action-script"),
        pace=_pace(last["drain"]) if "drain" in last else EAGER,
        keeper="no-keeper" not in last,
        warnings=tuple(warnings),
    )
    return replace(options, daemon=_daemon(settings))


def count_verbosity(settings: Iterable[Setting]) -> int:
    """Return criu's log level: ``-v4`` sets it, each v of ``-vvv`` adds one to what it was."""
    verbosity = WARNINGS
    for setting in settings:
        if setting.name != "verbosity":
            continue
        if setting.value is None:
            verbosity += 1
        elif re.fullmatch("v+", setting.value):
            verbosity += len(setting.value) + 1
        else:
            verbosity = _number(setting)
    return verbosity


def _refuse(last: Mapping[str, Setting]) -> None:
    if _is_on(last, "stream"):
        raise ConfigError("--stream: lazy-pages cannot read images from a stream")
    if _is_on(last, "page-server"):
        raise ConfigError(
            "--page-server: not supported yet; copy the images here, or use criu lazy-pages"
        )


def _daemon(settings: Iterable[Setting]) -> bool:
    # One boolean with two names, so the last mention of either decides.
    said = [each.on for each in settings if each.name in ("daemon", "restore-detached")]
    return said[-1] if said else False


def _is_on(last: Mapping[str, Setting], name: str) -> bool:
    return name in last and last[name].on


def _text(last: Mapping[str, Setting], name: str) -> str | None:
    return last[name].value if name in last else None


def _pace(setting: Setting) -> Pace:
    try:
        return Pace.parse(setting.value or "")
    except ValueError as error:
        raise ConfigError(f"--{setting.name}: {error}") from None


def _number(setting: Setting) -> int:
    if not re.fullmatch("[0-9]+", setting.value or ""):
        raise ConfigError(f"--{setting.name}: is not a number ({setting.value!r})")
    digits = (setting.value or "").lstrip("0") or "0"
    # Their count first: int() has a ValueError of its own for thousands of them.
    if len(digits) > len(str(INT_MAX)) or int(digits) > INT_MAX:
        raise ConfigError(f"--{setting.name}: is too large ({setting.value!r})")
    return int(digits)
