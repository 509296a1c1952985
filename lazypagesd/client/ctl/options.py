"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lazypagesd.client.ctl.criu_options import find_ours
from lazypagesd.client.ctl.pace import parse_pace, parse_restore
from lazypagesd.client.restore import SOCKET_PATH, Pace

Value = TypeVar("Value")

PACES = "eager, lazy, or bytes a second such as 64M"
DETAILS = "docs/reference/lazypagesctl.md has the details."


def read_options(words: Sequence[str]) -> argparse.Namespace:
    """Return what *words* ask for; say what is wrong with them and exit with 2."""
    # By hand, because how argparse takes "--" through sub-commands depends on its version.
    cut = words.index("--") if "--" in words else len(words)
    top = parser()
    options = top.parse_args(words[:cut])
    options.criu_options = list(words[cut + 1 :])
    if options.criu_options and options.command != "restore":
        top.error("-- and options of CRIU's are for `restore criu`")
    if ours := find_ours(options.criu_options):
        top.error(f"{ours} is given to criu already: say -D and -W before --")
    return options


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    top = argparse.ArgumentParser(
        prog="lazypagesctl",
        description="Ask a lazypagesd that serves.",
        epilog=DETAILS,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = add_command(commands, "serve", "have a restore served")
    add_criu(serve, "have one criu restore --lazy-pages served: it may begin when this returns")
    restore = add_command(commands, "restore", "have a restore served, and run it")
    criu = add_criu(
        restore, "have it served, and run criu restore; words after -- are options for it"
    )
    criu.add_argument("--criu", metavar="PROGRAM", default="criu", help="default: criu, in PATH")
    pace = add_command(commands, "pace", "fill a restore faster or slower from now on")
    add_restore(pace)
    pace.add_argument("pace", metavar="PACE", type=typed(parse_pace), help=PACES)
    add_socket(pace)
    wait = add_command(commands, "wait", "wait until every page of a restore is in")
    add_restore(wait)
    add_socket(wait)
    return top


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    """Return the parser of a command that says *text* of itself."""
    return commands.add_parser(
        name, allow_abbrev=False, help=text, description=f"{text[0].upper()}{text[1:]}."
    )


def add_criu(verb: argparse.ArgumentParser, text: str) -> argparse.ArgumentParser:
    """Add ``criu``, as what *verb* is about, with the options that all such have."""
    kinds = verb.add_subparsers(dest="kind", metavar="TOOL", required=True)
    criu = add_command(kinds, "criu", text)
    criu.add_argument(
        "-D",
        "--images-dir",
        metavar="DIR",
        type=Path,
        default=Path(),
        help="the images; default: here",
    )
    criu.add_argument(
        "-W",
        "--work-dir",
        metavar="DIR",
        type=Path,
        help="its work directory; default: that of -D",
    )
    criu.add_argument("--wait", action="store_true", help="return when every page is in")
    criu.add_argument(
        "--pace",
        metavar="PACE",
        type=typed(parse_pace),
        default=Pace.EAGER,
        help=f"{PACES}; default: eager",
    )
    add_socket(criu)
    return criu


def add_restore(command: argparse.ArgumentParser) -> None:
    """Add what says which restore is meant."""
    command.add_argument(
        "restore", metavar="RESTORE", type=typed(parse_restore), help="its number"
    )


def add_socket(command: argparse.ArgumentParser) -> None:
    """Add what says where the daemon is."""
    command.add_argument(
        "--socket",
        metavar="PATH",
        type=Path,
        default=SOCKET_PATH,
        help=f"the daemon's; default: {SOCKET_PATH}",
    )


def typed(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Let argparse say what *parse* says is wrong, which it does not of a ValueError."""

    def convert(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert
