"""Commands about a restore that is being served already."""

from __future__ import annotations

import argparse

from lazypagesd.client.ctl.daemon import reaching
from lazypagesd.client.ctl.waiting import wait_for
from lazypagesd.client.restore import Restore


def set_pace(options: argparse.Namespace) -> int:
    """Let it be filled at another pace."""
    with visiting(options) as restore:
        restore.set_pace(options.pace)
    return 0


def wait(options: argparse.Namespace) -> int:
    """Return when every page is in."""
    with visiting(options) as restore:
        wait_for(restore, options.socket)
    return 0


def visiting(options: argparse.Namespace) -> Restore:
    """Reach it; the caller closes it."""
    with reaching(options.socket):
        return Restore.attach(options.restore, options.socket)
