"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from lazypagesd.client import varlink
from lazypagesd.client.ctl.criu_options import find_ours
from lazypagesd.client.ctl.identify import parse_process, parse_session, parse_target
from lazypagesd.client.ctl.pace import parse_pace, parse_restore
from lazypagesd.client.restore import SOCKET_PATH, Pace

Value = TypeVar("Value")
Parser = argparse.ArgumentParser
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

PACES = "eager, lazy, or bytes a second such as 64M"
DETAILS = "man lazypagesctl has the details."
TARGET = "a restore (3), a session (3/17), or a process (pid:4711)"
# What top sorts by: see COLUMNS there, which is not imported to read a command line.
SORTS = ("missing", "rate", "p99", "faults", "end", "number")
SHELLS = ("bash", "zsh", "fish")

OVERVIEW = """\
examples:
  lazypagesctl restore criu -D images -- --shell-job -d    restore a process lazily
  lazypagesctl status                                      what is going on?
  lazypagesctl explain 4711                                why does process 4711 hang?
  lazypagesctl policy 3 64M                                fill restore 3 at 64 MiB a second

"""


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


def parser() -> Parser:
    """Return what reads the command line."""
    top = argparse.ArgumentParser(
        prog="lazypagesctl",
        description="Ask a lazypagesd that serves, and tell it what to do.",
        epilog=OVERVIEW + DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_handing_over(commands)
    add_looking(commands)
    add_ordering(commands)
    return top


# ---- commands that hand a restore over, or visit it ----


def add_handing_over(commands: Commands) -> None:
    """Add those that go by the socket at which restore tools hand over."""
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
    add_socket(pace, SOCKET_PATH)
    wait = add_command(commands, "wait", "wait until every page of a restore is in")
    add_restore(wait)
    add_socket(wait, SOCKET_PATH)


def add_criu(verb: Parser, text: str) -> Parser:
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
    add_socket(criu, SOCKET_PATH)
    return criu


# ---- commands that look ----


def add_looking(commands: Commands) -> None:
    """Add those that change nothing."""
    status = add_asking(commands, "status", "show the daemon and all that it serves", ["status"])
    add_ended(status)
    list_ = add_asking(
        commands, "list", "list restores, or the sessions of one", ["list", "list 3 --json"]
    )
    add_restore(list_, optional=True)
    add_ended(list_)
    list_.add_argument(
        "--numbers", action="store_true", help="the numbers of restores alone, for completion"
    )
    show = add_asking(
        commands,
        "show",
        "show a restore or a session in full",
        ["show 3", "show 3/17", "show pid:4711"],
    )
    add_target(show, f"{TARGET}; a number that is no restore's is a process's")
    watch = add_asking(
        commands, "watch", "show restores as they go on", ["watch", "watch 3 --json"]
    )
    add_restore(watch, optional=True)
    add_interval(watch)
    top = add_asking(commands, "top", "show restores on a full screen", ["top", "top --sort p99"])
    top.add_argument("--sort", choices=SORTS, default="missing", help="default: missing")
    add_interval(top)
    faults = add_asking(
        commands,
        "faults",
        "show the last faults on record",
        ["faults 3", "faults 3/17 --limit 20", "faults pid:4711 --steps"],
    )
    add_target(faults, TARGET)
    faults.add_argument(
        "--limit", metavar="N", type=positive, default=50, help="so many at most; default: 50"
    )
    faults.add_argument(
        "--steps", action="store_true", help="pages filled unasked, and events, instead"
    )
    explain = add_asking(
        commands,
        "explain",
        "say why a process waits",
        ["explain 4711", "explain 3/17", "explain 4711 --thread 4713"],
    )
    explain.add_argument(
        "target",
        metavar="PID",
        type=typed(parse_process),
        help="a process (4711), or a session (3/17)",
    )
    explain.add_argument(
        "--thread", metavar="TID", type=positive, help="of its faults, those of this thread"
    )
    report = add_asking(
        commands,
        "report",
        "make a page to look at of a restore",
        ["report 3 -o report.html", "report 3 --json -o 3.json", "report 3.json -o report.html"],
    )
    report.add_argument(
        "what", metavar="ID", help="a restore, by its number, or a file with a recording of one"
    )
    report.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write to it; default: stdout"
    )
    add_asking(commands, "metrics", "print all that is measured, for Prometheus", ["metrics"])
    completion = add_command(commands, "completion", "print what completes commands in a shell")
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


# ---- commands that change something ----


def add_ordering(commands: Commands) -> None:
    """Add those that tell the daemon what to do."""
    policy = add_asking(
        commands,
        "policy",
        "fill a restore at another pace from now on",
        ["policy 3 eager", "policy 3 64M", "policy 3 lazy"],
    )
    add_restore(policy)
    policy.add_argument("pace", metavar="PACE", type=typed(parse_pace), help=PACES)
    drain = add_asking(
        commands, "drain", "fill all of a restore as fast as it goes", ["drain 3 --wait"]
    )
    add_restore(drain)
    drain.add_argument("--wait", action="store_true", help="return when every page is in")
    pause = add_asking(commands, "pause", "fill only what is touched", ["pause 3"])
    add_restore(pause)
    resume = add_asking(commands, "resume", "go on after a pause", ["resume 3"])
    add_restore(resume)
    detach = add_asking(
        commands, "detach", "let go of a session", ["detach 3/17", "detach 3/17 --lose-pages"]
    )
    detach.add_argument(
        "target",
        metavar="SESSION",
        type=typed(parse_session),
        help="a session (3/17), or a process (pid:4711)",
    )
    detach.add_argument(
        "--lose-pages",
        action="store_true",
        help="although pages are missing, where its process reads zeros from then on",
    )
    retry = add_asking(
        commands,
        "retry",
        "try again at once what cannot be filled",
        ["retry", "retry 3"],
    )
    add_target(retry, f"{TARGET}; default: all", optional=True)


# ---- what they have in common ----


def add_command(commands: Commands, name: str, text: str, examples: Sequence[str] = ()) -> Parser:
    """Return the parser of a command that says *text* of itself, and shows how it is used."""
    lines = "".join(f"  lazypagesctl {example}\n" for example in examples)
    return commands.add_parser(
        name,
        allow_abbrev=False,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"examples:\n{lines}" if lines else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_asking(commands: Commands, name: str, text: str, examples: Sequence[str]) -> Parser:
    """Return that of one that goes by the admin socket."""
    command = add_command(commands, name, text, examples)
    command.add_argument(
        "--json", action="store_true", help="print the daemon's answer, as JSON in a line"
    )
    add_socket(command, varlink.SOCKET_PATH)
    return command


def add_restore(command: Parser, *, optional: bool = False) -> None:
    """Add what says which restore is meant."""
    command.add_argument(
        "restore",
        metavar="RESTORE",
        type=typed(parse_restore),
        nargs="?" if optional else None,
        help="its number" + ("; default: all" if optional else ""),
    )


def add_target(command: Parser, text: str, *, optional: bool = False) -> None:
    """Add what says which restore, session or process is meant."""
    command.add_argument(
        "target",
        metavar="ID",
        type=typed(parse_target),
        nargs="?" if optional else None,
        help=text,
    )


def add_ended(command: Parser) -> None:
    """Add what says that restores are wanted which are served no more."""
    command.add_argument("--ended", action="store_true", help="also those that have ended lately")


def add_interval(command: Parser) -> None:
    """Add how often it is looked."""
    command.add_argument(
        "--interval",
        metavar="SECONDS",
        type=typed(parse_interval),
        default=1.0,
        help="look so often; default: 1",
    )


def add_socket(command: Parser, default: Path) -> None:
    """Add what says where the daemon is."""
    command.add_argument(
        "--socket",
        metavar="PATH",
        type=Path,
        default=default,
        help=f"the daemon's; default: {default}",
    )


def parse_interval(text: str) -> float:
    """Return an interval in seconds, of at least a tenth; or ValueError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise ValueError(f"no number of seconds from 0.1 to 3600 ({text!r})")
    return seconds


def positive(text: str) -> int:
    """Return a number from 1 on; or an error that argparse tells."""
    if text.isdecimal() and 0 < int(text) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"no number from 1 on ({text!r})")


def typed(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Let argparse say what *parse* says is wrong, which it does not of a ValueError."""

    def convert(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert
