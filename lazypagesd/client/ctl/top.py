"""``top``: all restores on a full screen, sortable, and with keys to act on one."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from lazypagesd.client.ctl.admin import Reply, asking, print_json, trouble_of
from lazypagesd.client.ctl.keys import Keys
from lazypagesd.client.ctl.status import daemon_lines
from lazypagesd.client.ctl.tables import console, restores_table, total_latency
from lazypagesd.client.varlink import CallFailed, Connection

View = dict[str, Any]

# What one can sort by, the largest first but for names and ends.
COLUMNS: dict[str, Callable[[View], Any]] = {
    "missing": lambda view: -view["progress"]["nr_missing"],
    "rate": lambda view: -view["progress"]["rate"],
    "p99": lambda view: -total_latency(view["statistics"])["p99_ns"],
    "faults": lambda view: -view["statistics"]["faults"],
    "end": lambda view: view["progress"].get("end_in_ns", 2**63),
    "number": lambda view: view["id"],
}
HELP = "q quit  s sort  up/down select  p pause  r resume  e eager  l lazy  t retry"


class Screen:
    """What is shown: the last replies, how they are sorted, and which restore is selected."""

    def __init__(self, sort: str) -> None:
        """Sort by a column of COLUMNS."""
        self.sort = sort
        self.selected: int | None = None
        self.message = ""
        self._daemon: Reply | None = None
        self._restores: list[View] = []

    def take(self, connection: Connection) -> None:
        """Ask for everything anew."""
        self._daemon = connection.call("Describe")
        self._restores = connection.call("ListRestores")["restores"]
        self._sort()

    def _sort(self) -> None:
        self._restores.sort(key=lambda view: (COLUMNS[self.sort](view), view["id"]))
        numbers = [view["id"] for view in self._restores]
        if self.selected not in numbers:
            self.selected = numbers[0] if numbers else None

    def render(self) -> RenderableType:
        """Return what is to be seen."""
        assert self._daemon is not None, "taken before"
        foot = Text(self.message, style="yellow") if self.message else Text(HELP, style="dim")
        return Group(
            *daemon_lines(self._daemon),
            Text(f"sorted by {self.sort}"),
            Text(""),
            restores_table(self._restores, selected=self.selected),
            Text(""),
            foot,
        )

    def press(self, key: str, connection: Connection) -> bool:
        """Do what a key asks for; return whether to go on."""
        self.message = ""
        if key in ("q", "\x1b"):
            return False
        if key == "s":
            names = list(COLUMNS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
            self._sort()
        elif key in ("up", "k", "down", "j"):
            self._select(-1 if key in ("up", "k") else 1)
        elif self.selected is not None:
            self._act(key, connection)
        return True

    def _select(self, step: int) -> None:
        numbers = [view["id"] for view in self._restores]
        if numbers:
            place = numbers.index(self.selected) + step
            self.selected = numbers[min(max(place, 0), len(numbers) - 1)]

    def _act(self, key: str, connection: Connection) -> None:
        orders: dict[str, tuple[str, dict[str, object]]] = {
            "p": ("Pause", {}),
            "r": ("Resume", {}),
            "e": ("SetPolicy", {"pace": {"kind": "eager"}}),
            "l": ("SetPolicy", {"pace": {"kind": "lazy"}}),
            "t": ("Retry", {}),
        }
        if key not in orders:
            return
        method, parameters = orders[key]
        try:
            connection.call(method, restore=self.selected, **parameters)
            self.message = f"{method}: restore {self.selected}"
        except CallFailed as error:
            self.message = str(trouble_of(error))


def top(options: argparse.Namespace) -> int:
    """Show it until q is pressed; where there is no terminal, once."""
    screen = Screen(options.sort)
    with asking(options) as connection:
        screen.take(connection)
        if options.json:
            print_json({"daemon": screen._daemon, "restores": screen._restores})
        elif not (sys.stdin.isatty() and sys.stdout.isatty()):
            console().print(screen.render())
        else:
            run(screen, connection, options.interval)
    return 0


def run(screen: Screen, connection: Connection, interval_s: float) -> None:
    """Show the screen, and take keys."""
    with (
        Keys(sys.stdin.fileno()) as keys,
        Live(screen.render(), console=console(), screen=True, auto_refresh=False) as live,
    ):
        due = time.monotonic() + interval_s
        while True:
            key = keys.wait(due - time.monotonic())
            if key is not None and not screen.press(key, connection):
                return
            if key is None:
                due = time.monotonic() + interval_s
            screen.take(connection)
            live.update(screen.render(), refresh=True)
