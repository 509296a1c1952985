"""Where the time of one fault goes: the system calls that a handler makes for it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.case import Case
from tests.bench.handlers import BARE, DEADLINE_S, OURS_LAZY, Handler, Serving
from tests.bench.layout import MIB_PAGES, Layout
from tests.bench.race import Outcome, Reach, Rival, race
from tests.bench.scenes import Sample, Touching

# A line of strace -c: percent, seconds, usecs a call, calls, perhaps errors, name.
LINE = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", re.MULTILINE)
APART_NS = 2_000_000


class Strace:
    """Counts a process's system calls, of all its threads, from here on until `counts`."""

    def __init__(self, pid: int, output: Path) -> None:
        self._output = output
        self._process = subprocess.Popen(
            ["strace", "-f", "-c", "-o", output, "-p", str(pid)], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        self._process.stderr.readline()  # "attached", of the last thread as of the first

    def counts(self) -> dict[str, int]:
        """Return how often each was made."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=DEADLINE_S)
        found = LINE.findall(self._output.read_text())
        return {name: int(count) for count, name in found if name != "total"}


def counted(bench: Bench, handler: Handler, layout: Layout, touching: Touching) -> Sample:
    """Return how many system calls each of *touching*'s faults took, and which."""
    traced: list[Strace] = []
    nr_faults = touching.touches(layout)

    def trace(serving: Serving) -> None:
        traced.append(Strace(serving.process.pid, bench.directory / "strace"))

    def look(_serving: Serving) -> Sample:
        counts = traced[0].counts()
        each = {f"{name} a fault": count / nr_faults for name, count in counts.items()}
        return {**each, "calls a fault": sum(counts.values()) / nr_faults}

    return bench.handed_over(layout).touch(handler, touching, before=trace, look=look)


def calls(bench: Bench) -> Outcome:
    """Lone faults, far enough apart that none shares a round with another."""
    if shutil.which("strace") is None or os.geteuid() != 0:
        return Outcome(notes=("calls: needs root and strace",))
    layout = Layout(bench.pick(16 * MIB_PAGES, MIB_PAGES))
    touching = Touching("random", 1, bench.pick(500, 50), APART_NS, asleep=True)
    outcome = race(
        lambda: counted(bench, OURS_LAZY, layout, touching),
        Rival(
            "bare loop",
            lambda: counted(bench, BARE, layout, touching),
            (Reach("calls a fault"),),
            bench.pairs(3),
        ),
    )
    notes = [f"- {who}: {named(samples[-1])}" for who, samples in outcome.samples.items()]
    return outcome + Outcome(notes=("System calls of a lone fault:", "", *notes))


def named(sample: Sample) -> str:
    """Say which calls a fault takes, but for those that hardly any does."""
    each = {
        name.removesuffix(" a fault"): count
        for name, count in sample.items()
        if name.endswith(" a fault") and not name.startswith("calls") and count > 0.05
    }
    return ", ".join(f"{name} {count:.2f}" for name, count in sorted(each.items()))


CASES = (Case("calls", "system calls of a lone fault", calls),)
