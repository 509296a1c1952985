"""The command line and its reference."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from lazypagesd.client.ctl.options import parser, read_options

OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")


def commands_of(
    top: argparse.ArgumentParser, name: str = "lazypagesctl"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command that does something, and its parser."""
    below = [a for a in top._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield name, top
    for action in below:
        for word, command in action.choices.items():
            yield from commands_of(command, f"{name} {word}")


def test_options_are_in_the_help() -> None:
    """What argparse is told reaches people: every option has a text."""
    for name, command in commands_of(parser()):
        text = command.format_help()
        for action in command._actions:
            assert action.help, (name, action)
            assert set(action.option_strings) <= set(OPTION.findall(text))


def test_words_behind_two_dashes_are_for_criu() -> None:
    """Nothing of them is looked at, a further -- included."""
    words = ["restore", "criu", "-D", "x", "--", "-d", "--exec-cmd", "--", "-h"]
    options = read_options(words)
    assert options.images_dir == Path("x")
    assert options.criu_options == ["-d", "--exec-cmd", "--", "-h"]
