"""Whether another build can take over what a daemon leaves: asked before that one is stopped.

The daemon says in its runtime directory of which versions the states are that it leaves: from that
of the oldest which it has taken over itself, to that of those which it makes.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from lazypagesd.engine.state import OLDEST_VERSION, VERSION
from lazypagesd.errors import SessionError
from lazypagesd.service.estate import Estate

FILE_NAME = "state-version"

log = logging.getLogger(__name__)


def publish(runtime_dir: Path, estate: Estate) -> None:
    """Say in *runtime_dir* what this daemon, which has taken *estate* over, is going to leave."""
    path = runtime_dir / FILE_NAME
    taken = [each.state.version for left in estate.restores.values() for each in left.sessions]
    try:
        # In place: the file may be ours where the directory is not.  Half of it is none.
        path.write_text(f"{min([VERSION, *taken])} {VERSION}\n")
    except OSError as error:
        log.warning("%s: %s, ignoring", path, error.strerror)


def check(runtime_dir: Path) -> int:
    """Say whether this build can take over what the daemon of *runtime_dir* leaves; return 0.

    Raises SessionError if it cannot, OSError if there is no daemon to be asked.
    """
    path = runtime_dir / FILE_NAME
    oldest, newest = read(path)
    if oldest < OLDEST_VERSION or newest > VERSION:
        raise SessionError(
            f"{path}: the daemon leaves state of {versions(oldest, newest)}, and this lazypagesd"
            f" takes over {versions(OLDEST_VERSION, VERSION)}: leave the daemon running until"
            " its restores have ended, or install another version"
        )
    sys.stdout.write(f"{path}: {versions(oldest, newest)} can be taken over\n")
    return 0


def read(path: Path) -> tuple[int, int]:
    """Return what is said in *path*.  Raises SessionError if it makes no sense, and OSError."""
    text = path.read_bytes()
    try:
        oldest, newest = map(int, text.split())
    except ValueError:
        raise SessionError(f"{os.fspath(path)}: not two versions ({text[:32]!r})") from None
    return oldest, newest


def versions(oldest: int, newest: int) -> str:
    """Name a range of versions."""
    return f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"
