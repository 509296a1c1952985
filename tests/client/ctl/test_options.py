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


def described(reference: str) -> dict[str, str]:
    """Return the sections of *reference* that are about a command each."""
    parts = re.split("^## ", reference, flags=re.MULTILINE)[1:]
    sections = dict(part.split("\n", 1) for part in parts)
    return {head: text for head, text in sections.items() if head.startswith("lazypagesctl")}


def test_help_and_reference_agree(repository: Path) -> None:
    """Each command has a section of its own with its options and arguments, and no others."""
    sections = described((repository / "docs/reference/lazypagesctl.md").read_text())
    commands = dict(commands_of(parser()))
    assert commands.keys() == sections.keys()
    for name, command in commands.items():
        table = re.findall("^\\| (`.*?) \\|", sections[name], flags=re.MULTILINE)
        told = {word for cell in table for word in re.findall("`([^` ]+)[^`]*`", cell)}
        known = {option for action in command._actions for option in action.option_strings}
        known |= {str(a.metavar) for a in command._actions if not a.option_strings}
        assert told == known - {"-h", "--help"}, name


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
