"""How the daemon is reached, and what to do where it cannot be."""

from __future__ import annotations

import contextlib
import grp
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

from lazypagesd.client.ctl.trouble import NO_DAEMON, NO_PERMISSION, Trouble


@contextlib.contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turn what can go wrong while one connects to *path* into what to do about it."""
    try:
        yield
    except (FileNotFoundError, ConnectionRefusedError):
        text = f"no daemon listens at {path}: start `lazypagesd serve`"
        raise Trouble(text, NO_DAEMON) from None
    except PermissionError:
        text = f"{path}: permission denied: it is for {who_may(path)}"
        raise Trouble(text, NO_PERMISSION) from None


def who_may(path: Path) -> str:
    """Return whose the socket at *path* is."""
    try:
        status = path.stat()
    except OSError:  # its directory is closed to us as well
        return "another user"
    user = name_of(lambda: pwd.getpwuid(status.st_uid).pw_name, status.st_uid)
    group = name_of(lambda: grp.getgrgid(status.st_gid).gr_name, status.st_gid)
    return f"user {user} and group {group}"


def name_of(look_up: Callable[[], str], number: int) -> str:
    """Return a name, or the number of who has none."""
    try:
        return look_up()
    except KeyError:
        return str(number)
