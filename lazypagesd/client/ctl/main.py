"""The command, from its words to its exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lazypagesd.client.ctl.criu import restore_criu, serve_criu
from lazypagesd.client.ctl.options import read_options
from lazypagesd.client.ctl.trouble import Trouble, describe
from lazypagesd.client.ctl.visits import set_pace, wait
from lazypagesd.client.restore import Refused

COMMANDS = {"serve": serve_criu, "restore": restore_criu, "pace": set_pace, "wait": wait}
INTERRUPTED = 130  # as a shell has it: 128 and SIGINT


def main(words: Sequence[str] | None = None) -> int:
    """Do what *words*, by default the command line, ask for; return the exit code."""
    options = read_options(sys.argv[1:] if words is None else words)
    try:
        return COMMANDS[options.command](options)
    except (OSError, Refused, Trouble) as error:
        sys.stderr.write(f"lazypagesctl: {describe(error)}\n")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
