"""CRIU's configuration files: which of them are read, in which order, and what they may say.

Some facts about them, observed with CRIU 4.1.1:

- The order is /etc/criu/default.conf, ~/.criu/default.conf, the file that $CRIU_CONFIG_FILE names,
  the one that ``--config`` names (the last of several), the command line.  What comes later wins;
  ``-v`` adds to what it finds.
- ``--no-default-config`` and ``--config`` both keep the first two from being read, not the one of
  the environment.
- A file that is not there is passed over.  ``config`` and ``no-default-config`` within a file do
  nothing.
- A line is a long option without its dashes, then its value after white space or ``=``; quotes of
  both kinds keep white space together; ``#`` begins a comment, also within a word.  A third word
  is an error.
- An optional value is one only after ``=``: ``verbosity 4`` is ``-v``, and the 4 is dropped.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from lazypagesd.cli.criu_options import Parsed, parse_words
from lazypagesd.errors import ConfigError

DEFAULT = Path("/etc/criu/default.conf")
OF_USER = Path(".criu/default.conf")
# Every option of criu fits many times; a device or a pipe that is named by mistake may not end.
LONGEST = 1 << 20  # characters


def config_files(command_line: Parsed, environment: Mapping[str, str]) -> Iterator[Path]:
    """Return the files to read, weakest first; any of them may not be there."""
    given = [setting for setting in command_line.settings if setting.name == "config"]
    if not given and not any(each.name == "no-default-config" for each in command_line.settings):
        yield DEFAULT
        if home := environment.get("HOME"):
            yield Path(home) / OF_USER
    if of_environment := environment.get("CRIU_CONFIG_FILE"):
        yield Path(of_environment)
    if given:
        yield Path(given[-1].value or "")


def read_config(path: Path) -> Parsed:
    """Return what the configuration file at *path* says; ConfigError names the file and the line.

    A file that is not there says nothing; one that cannot be read says so in a warning.
    """
    parsed = Parsed()
    try:
        with path.open(errors="surrogateescape") as file:
            text = file.read(LONGEST + 1)
    except FileNotFoundError:
        return parsed
    except OSError as error:
        parsed.warnings.append(f"{path}: {error.strerror}, ignoring")
        return parsed
    if len(text) > LONGEST:
        raise ConfigError(f"{path}: more than {LONGEST} characters: is this a configuration?")
    for number, line in enumerate(text.split("\n"), start=1):
        _read_line(f"{path}:{number}", line, parsed)
    return parsed


def _read_line(place: str, line: str, parsed: Parsed) -> None:
    # A command line can have none, and no call of the kernel takes a path with one.
    if "\0" in line:
        raise ConfigError(f"{place}: a zero byte is in it: is this a text file?")
    try:
        words = shlex.split(line, comments=True)
        if not words:
            return
        said = _parse_statement(words)
    except ValueError as error:  # shlex's own, and our ConfigError, which is one
        raise ConfigError(f"{place}: {error}") from error
    parsed.settings += said.settings
    parsed.warnings += [f"{place}: {warning}" for warning in said.warnings]
    if said.operands:
        parsed.warnings.append(
            f"{place}: {words[0]} takes no value after a space ({said.operands[0]!r}), ignoring"
        )


def _parse_statement(words: list[str]) -> Parsed:
    option, *values = words
    if option.startswith("-"):
        raise ConfigError(f"options are written without dashes here ({option!r})")
    if len(values) > 1:
        raise ConfigError(f"more than an option and its value ({values[1]!r}); quote the value")
    return parse_words([f"--{option}", *values])
