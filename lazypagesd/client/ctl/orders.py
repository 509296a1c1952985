"""What the daemon is told to do: ``drain``, ``pause``, ``resume``, ``detach``, ``retry``,
``policy``; and ``metrics``."""

from __future__ import annotations

import argparse
import sys

from lazypagesd.client.ctl.admin import Reply, asking, print_json, session_of
from lazypagesd.client.ctl.units import count, pages, percent
from lazypagesd.client.restore import Pace


def order(options: argparse.Namespace, method: str, **parameters: object) -> int:
    """Have it done; without ``--json`` no news is good news."""
    with asking(options) as connection:
        reply = connection.call(method, **parameters)
    if options.json:
        print_json(reply)
    return 0


def pause(options: argparse.Namespace) -> int:
    """Fill only what is touched."""
    return order(options, "Pause", restore=options.restore)


def resume(options: argparse.Namespace) -> int:
    """Go on at its pace."""
    return order(options, "Resume", restore=options.restore)


def policy(options: argparse.Namespace) -> int:
    """Set another pace."""
    ends = {Pace.EAGER: {"kind": "eager"}, Pace.LAZY: {"kind": "lazy"}}
    pace = ends.get(options.pace, {"kind": "paced", "rate": options.pace.rate})
    return order(options, "SetPolicy", restore=options.restore, pace=pace)


def detach(options: argparse.Namespace) -> int:
    """Let go of a session."""
    with asking(options) as connection:
        session = session_of(connection, options.target)
        reply = connection.call("Detach", session=session, lose_pages=options.lose_pages or None)
    if options.json:
        print_json(reply)
    return 0


def retry(options: argparse.Namespace) -> int:
    """Try again at once what cannot be filled."""
    target = options.target
    with asking(options) as connection:
        session = session_of(connection, target) if target and target.restore is None else None
        restore = target.restore if target else None
        reply = connection.call("Retry", restore=restore, session=session)
    if options.json:
        print_json(reply)
    else:
        print(f"{count(reply['nr_sessions'], 'session')} tried again")
    return 0


def drain(options: argparse.Namespace) -> int:
    """Fill all that is missing, and wait for it with ``--wait``."""
    if not options.wait:
        return order(options, "Drain", restore=options.restore)
    with asking(options) as connection:
        for reply in connection.stream("Drain", restore=options.restore):
            if options.json:
                print_json(reply)
            elif sys.stderr.isatty():
                sys.stderr.write(f"\r{progress_text(reply)}\033[K")
    if not options.json:
        end = "\r" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{end}{progress_text(reply)}\n")
    return 0


def progress_text(reply: Reply) -> str:
    """Return how far it is."""
    progress = reply["progress"]
    done = progress["nr_pages"] - progress["nr_missing"]
    return (
        f"{percent(done, progress['nr_pages'])} of {pages(progress['nr_pages'])},"
        f" {pages(progress['nr_missing'])} missing"
    )


def metrics(options: argparse.Namespace) -> int:
    """Print all that is measured, for Prometheus."""
    with asking(options) as connection:
        reply = connection.call("GetMetrics")
    if options.json:
        print_json(reply)
    else:
        sys.stdout.write(reply["text"])
    return 0
