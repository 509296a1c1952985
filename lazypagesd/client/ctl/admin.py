"""The daemon, asked by its admin socket."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from typing import Any

from lazypagesd.client.ctl.daemon import reaching
from lazypagesd.client.ctl.identify import Target
from lazypagesd.client.ctl.trouble import UNKNOWN, Trouble
from lazypagesd.client.varlink import CallFailed, Connection

Reply = dict[str, Any]

UNKNOWN_ERRORS = {
    "NoSuchRestore": "restore {restore}: none such is being served for you",
    "NoSuchSession": "session {session}: none such is being served for you",
    "NoSuchProcess": "process {pid}: none of its memory is being served for you",
}
REFUSALS = {
    "NotReleased": "restore {restore}: its restore tool has not finished yet: wait for that",
    "PagesMissing": "session {session}: {nr_missing} pages are missing:"
    " `lazypagesctl drain` first, or give them up with --lose-pages",
    "InvalidParameter": "{parameter}: the daemon does not take that",
}


@contextlib.contextmanager
def asking(options: argparse.Namespace) -> Iterator[Connection]:
    """Connect to the daemon; what it answers with an error becomes Trouble."""
    with reaching(options.socket):
        connection = Connection(options.socket)
    with contextlib.closing(connection):
        try:
            yield connection
        except CallFailed as error:
            raise trouble_of(error) from None
        except TimeoutError:
            raise Trouble(f"{options.socket}: the daemon does not answer: does it hang?") from None


def trouble_of(error: CallFailed) -> Trouble:
    """Return what people are told of an error reply."""
    if text := UNKNOWN_ERRORS.get(error.name):
        return Trouble(text.format(**error.parameters), UNKNOWN)
    if text := REFUSALS.get(error.name):
        return Trouble(text.format(**error.parameters))
    return Trouble(f"the daemon refuses: {error}")


def session_of(connection: Connection, target: Target) -> str:
    """Return the id of the session that *target*, a session or a process, means."""
    if target.session is not None:
        return target.session
    reply = connection.call("GetSession", pid=target.pid)
    return str(reply["session"]["id"])


def print_json(reply: object) -> None:
    """Print what the daemon has answered, as it is, in a line."""
    print(json.dumps(reply), flush=True)
