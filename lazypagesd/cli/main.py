"""The command ``lazypagesd``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from lazypagesd import __version__
from lazypagesd.cli.criu_options import COMMAND
from lazypagesd.cli.lazy_pages_options import read_options
from lazypagesd.cli.usage import CAN_TAKE_OVER_USAGE, LAZY_PAGES_USAGE, SERVE_USAGE, USAGE
from lazypagesd.errors import LazyPagesError
from lazypagesd.service import process
from lazypagesd.service.logs import start_log
from lazypagesd.service.options import WARNINGS, DropinOptions

log = logging.getLogger(__name__)

SERVE = "serve"
CAN_TAKE_OVER = "can-take-over"
HELP = {"-h", "--help"}
VERSION = {"-V", "--version"}


def main(words: Sequence[str] | None = None) -> int:
    """Do what *words*, by default the command line, ask for; return the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    # Before anything is parsed, as in criu: help is what one asks for when the rest is wrong.
    if HELP.intersection(words):
        sys.stdout.write(usage_of(words))
        return 0
    if VERSION.intersection(words):
        sys.stdout.write(f"lazypagesd {__version__}\n")
        return 0
    start_log(verbosity=WARNINGS)
    process.import_without_collecting()
    try:
        # First of all words, unlike lazy-pages, which stands where it may with criu.
        if words[:1] == [SERVE]:
            return run_serve(words[1:])
        if words[:1] == [CAN_TAKE_OVER]:
            return run_can_take_over(words[1:])
        return run_lazy_pages(read_options(words, os.environ))
    except (LazyPagesError, OSError) as error:
        # Of an error that says nothing of what it is about, where it was is all there is to go by.
        log.error("%s", describe(error), exc_info=is_bare(error))
        return 1


def usage_of(words: Sequence[str]) -> str:
    """Return what to say to ``--help`` among *words*."""
    if words[0] == SERVE:
        return SERVE_USAGE
    if words[0] == CAN_TAKE_OVER:
        return CAN_TAKE_OVER_USAGE
    return LAZY_PAGES_USAGE if COMMAND in words else USAGE


def run_serve(words: Sequence[str]) -> int:
    """Serve restores until a signal, as *words* behind ``serve`` say; return the exit code."""
    from lazypagesd.cli import serve_options

    options = serve_options.read_options(words, os.environ)
    start_log(verbosity=options.verbosity)
    from lazypagesd.service.serve import run

    process.collect_from_now_on()
    return run(options)


def run_can_take_over(words: Sequence[str]) -> int:
    """Say whether this build could follow the daemon that *words* mean; return the exit code."""
    from lazypagesd.cli import serve_options

    runtime_dir = serve_options.read_runtime_dir(words, os.environ)
    from lazypagesd.service.upgrade import check

    return check(runtime_dir)


def run_lazy_pages(options: DropinOptions) -> int:
    """Serve one restore, in the place of ``criu lazy-pages``; return the exit code."""
    start_log(verbosity=options.verbosity)
    # Here, because it brings a lot with it, and a wrong option or --help should not wait for that.
    from lazypagesd.service.dropin import run

    return run(options)


def is_bare(error: Exception) -> bool:
    """Whether *error* says what the kernel says of its number, and no more."""
    if not isinstance(error, OSError) or error.errno is None or error.filename is not None:
        return False
    return error.strerror == os.strerror(error.errno)


def describe(error: Exception) -> str:
    """Return *error* as one line for a person: an OSError as ``file: what was wrong``."""
    if isinstance(error, OSError) and error.strerror:
        subject = f"{error.filename}: " if error.filename is not None else ""
        return f"{subject}{error.strerror}"
    return str(error)
