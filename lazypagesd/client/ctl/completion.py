"""``completion``: what shells complete a command line by, made from the parser of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

# What a shell runs to complete a restore's number; nothing is said if there is no daemon.
RESTORES = "lazypagesctl list --numbers 2>/dev/null"
# Arguments that are the number of a restore, or something that begins with one.
OF_RESTORES = ("restore", "target")


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it is typed, with its options, and whether it takes a restore."""

    words: tuple[str, ...]
    text: str
    options: tuple[tuple[str, str], ...]
    takes_restore: bool


def commands_of(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """Yield every command that *parser* knows."""
    yield from descend(parser, (), "")


def descend(
    parser: argparse.ArgumentParser, words: tuple[str, ...], text: str
) -> Iterator[Command]:
    """Yield a command and those below it."""
    options, takes_restore = [], False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {each.dest: each.help or "" for each in action._choices_actions}
            for name, below in action.choices.items():
                yield from descend(below, (*words, name), texts.get(name, ""))
        elif action.option_strings:
            options += [(option, action.help or "") for option in action.option_strings]
        else:
            takes_restore |= action.dest in OF_RESTORES
    if words:
        yield Command(words, text, tuple(options), takes_restore)


def bash(commands: list[Command]) -> str:
    """Return a script for bash."""
    cases = []
    for command in commands:
        words = " ".join(option for option, _ in command.options)
        below = next_words(commands, command.words)
        numbers = f" $({RESTORES})" if command.takes_restore else ""
        pattern = f'"{" ".join(command.words)} "*'
        cases.append(f'\t{pattern}) words="{" ".join([*below, words]).strip()}{numbers}" ;;')
    # The longest first, since the first that fits is taken.
    cases.sort(key=lambda case: -len(case.split(")")[0]))
    first = " ".join(next_words(commands, ()))
    return "\n".join(
        [
            "# lazypagesctl(1) completion for bash",
            "_lazypagesctl() {",
            "\tlocal words current=${COMP_WORDS[COMP_CWORD]}",
            '\tlocal line="${COMP_WORDS[*]:1:COMP_CWORD-1} "',
            '\tcase "$line" in',
            *cases,
            f'\t*) words="{first}" ;;',
            "\tesac",
            '\tCOMPREPLY=($(compgen -W "$words" -- "$current"))',
            "}",
            "complete -o default -F _lazypagesctl lazypagesctl",
            "",
        ]
    )


def zsh(commands: list[Command]) -> str:
    """Return a script for zsh."""
    lines = ["#compdef lazypagesctl", "local -a words", 'case "${words[*]:1}" in', "esac"]
    lines = ["#compdef lazypagesctl", "_lazypagesctl() {", '\tlocal line="${words[2,CURRENT-1]} "']
    lines += ["\tlocal -a found", '\tcase "$line" in']
    for command in sorted(commands, key=lambda each: -len(" ".join(each.words))):
        found = [*next_words(commands, command.words), *(each for each, _ in command.options)]
        numbers = f" $({RESTORES})" if command.takes_restore else ""
        lines.append(f'\t"{" ".join(command.words)} "*) found=({" ".join(found)}{numbers}) ;;')
    first = [
        f"'{command.words[0]}:{escape(command.text)}'"
        for command in commands
        if len(command.words) == 1
    ]
    lines += [
        f"\t*) found=({' '.join(first)}); _describe command found; return ;;",
        "\tesac",
        "\tcompadd -a found",
        "\t_files",
        "}",
        '_lazypagesctl "$@"',
        "",
    ]
    return "\n".join(lines)


def fish(commands: list[Command]) -> str:
    """Return a script for fish."""
    lines = ["# lazypagesctl(1) completion for fish"]
    for command in commands:
        *before, name = command.words
        condition = seen(before) if before else "__fish_use_subcommand"
        lines.append(
            f"complete -c lazypagesctl -n '{condition}' -a {name} -d '{escape(command.text)}'"
        )
        here = seen(list(command.words))
        if command.takes_restore:
            lines.append(f"complete -c lazypagesctl -f -n '{here}' -a '({RESTORES})'")
        for option, text in command.options:
            dashes = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            lines.append(f"complete -c lazypagesctl -n '{here}' {dashes} -d '{escape(text)}'")
    return "\n".join([*lines, ""])


def seen(words: list[str]) -> str:
    """Return fish's condition that these commands have been typed."""
    return "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words)


def next_words(commands: list[Command], words: tuple[str, ...]) -> list[str]:
    """Return what may come behind *words*."""
    depth = len(words)
    return [
        each.words[depth]
        for each in commands
        if len(each.words) == depth + 1 and each.words[:depth] == words
    ]


def escape(text: str) -> str:
    """Return *text* as it may stand between single quotes, in any of the three."""
    return text.replace("'", "").replace(":", " -")


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def completion(options: argparse.Namespace) -> int:
    """Print the script for a shell."""
    from lazypagesd.client.ctl.options import parser  # which names this command

    commands = sorted(commands_of(parser()), key=lambda each: each.words)
    sys.stdout.write(SHELLS[options.shell](commands))
    return 0
