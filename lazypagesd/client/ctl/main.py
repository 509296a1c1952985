"""The command, from its words to its exit code."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import cast

from lazypagesd.client.ctl.options import read_options
from lazypagesd.client.ctl.trouble import Trouble, code_of, describe
from lazypagesd.client.restore import Refused

Command = Callable[[argparse.Namespace], int]

# Where each command is: imported when it is asked for, since not all want what is slow to import.
COMMANDS = {
    "serve": "criu:serve_criu",
    "restore": "criu:restore_criu",
    "pace": "visits:set_pace",
    "wait": "visits:wait",
    "status": "status:status",
    "list": "lists:list_",
    "show": "lists:show",
    "watch": "live:watch",
    "top": "top:top",
    "faults": "history:faults",
    "explain": "explain:explain",
    "report": "report:report",
    "metrics": "orders:metrics",
    "completion": "completion:completion",
    "policy": "orders:policy",
    "drain": "orders:drain",
    "pause": "orders:pause",
    "resume": "orders:resume",
    "detach": "orders:detach",
    "retry": "orders:retry",
}
INTERRUPTED = 130  # as a shell has it: 128 and SIGINT


def main(words: Sequence[str] | None = None) -> int:
    """Do what *words*, by default the command line, ask for; return the exit code."""
    options = read_options(sys.argv[1:] if words is None else words)
    try:
        return find(options.command)(options)
    except (OSError, Refused, Trouble) as error:
        sys.stderr.write(f"lazypagesctl: {describe(error)}\n")
        return code_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def find(name: str) -> Command:
    """Return the command called *name*."""
    module, _, function = COMMANDS[name].partition(":")
    found = getattr(importlib.import_module(f"lazypagesd.client.ctl.{module}"), function)
    return cast(Command, found)
