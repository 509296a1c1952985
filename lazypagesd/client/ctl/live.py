"""``watch``: restores as they go on, for as long as one likes."""

from __future__ import annotations

import argparse
import sys

from rich.live import Live
from rich.text import Text

from lazypagesd.client.ctl.admin import asking, print_json
from lazypagesd.client.ctl.tables import console, end_text, restores_table
from lazypagesd.client.ctl.units import pages, percent, size

EMPTY = "nothing is being restored"


def watch(options: argparse.Namespace) -> int:
    """Show them again and again; with a restore, until it has ended."""
    with asking(options) as connection:
        replies = connection.stream(
            "Watch", restore=options.restore, interval_ms=int(options.interval * 1000)
        )
        # Nothing may happen for any time.
        connection.wait_for_ever()
        if options.json:
            for reply in replies:
                print_json(reply)
        elif sys.stdout.isatty():
            with Live(console=console(), auto_refresh=False) as live:
                for reply in replies:
                    table = restores_table(reply["restores"]) if reply["restores"] else Text(EMPTY)
                    live.update(table, refresh=True)
        else:
            for reply in replies:
                for view in reply["restores"]:
                    print(line_of(view), flush=True)
    return 0


def line_of(view: dict[str, object]) -> str:
    """Return how far a restore is, where nobody looks at a screen."""
    progress = view["progress"]
    assert isinstance(progress, dict)
    done = progress["nr_pages"] - progress["nr_missing"]
    return (
        f"{view['name']}: {view['state']}, {percent(done, progress['nr_pages'])} of"
        f" {pages(progress['nr_pages'])}, {size(progress['rate'])}/s, {end_text(progress)}"
    )
