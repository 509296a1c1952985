"""Filling what nobody waits for: alone, and beside a thread that faults."""

from __future__ import annotations

from dataclasses import replace

from tests.bench.bench import Bench
from tests.bench.case import Case
from tests.bench.handlers import BARE, BARE_FILLING, OURS, Ours
from tests.bench.layout import GIB_PAGES, MIB_PAGES, Layout
from tests.bench.race import Outcome, Reach, Rival, race
from tests.bench.scenes import FILLED, Touching

# Pinned to one, a daemon has one worker.
ONE_CPU = "1"
ONE_WORKER = Ours(cpus=ONE_CPU)


def layout(bench: Bench) -> Layout:
    """Return memory without a hole."""
    return Layout(bench.pick(GIB_PAGES, MIB_PAGES))


def drain_alone(bench: Bench) -> Outcome:
    """One worker, and two in one process, beside one and two threads of plain COPY."""
    memory = layout(bench)
    scene = bench.handed_over(memory)
    one = race(
        lambda: scene.touch(ONE_WORKER, FILLED),
        Rival(
            "copy loop",
            lambda: bench.copy(memory, 1, cpus=ONE_CPU),
            (Reach("total_ns", 1 / 0.9),),
            bench.pairs(),
        ),
        Rival(
            "bare loop that drains",
            lambda: scene.touch(replace(BARE_FILLING, cpus=ONE_CPU), FILLED),
            (Reach("total_ns"),),
            bench.pairs(),
        ),
        name="ours, 1 worker",
    )
    two = race(
        lambda: scene.touch(OURS, FILLED),
        Rival(
            "copy loop",
            lambda: bench.copy(memory, 1, cpus=ONE_CPU),
            (Reach("total_ns", 1 / 1.7),),
            bench.pairs(),
        ),
        Rival(
            "ours, 1 worker",
            lambda: scene.touch(ONE_WORKER, FILLED),
            (Reach("total_ns"),),
            bench.pairs(),
        ),
        Rival(
            "copy loop, 2 threads",
            lambda: bench.copy(memory, 2),
            (Reach("total_ns"),),
            bench.pairs(),
        ),
        name="ours, 2 workers",
    )
    return one + two


def drain_while_faulting(bench: Bench) -> Outcome:
    """A thread faults at random while the rest is filled.

    The first rival does nothing but answer; the second fills the rest as well.  Faults are fewer
    the faster the rest is filled, and touches are as many: so these are compared, too.
    """
    scene = bench.handed_over(layout(bench))
    touching = Touching("random")
    return race(
        lambda: scene.touch(OURS, touching),
        Rival(
            "bare loop",
            lambda: scene.touch(BARE, touching),
            (
                Reach("faults_p99_ns", 2.0),
                Reach("faults_p99.9_ns"),
                Reach("touches_p99_ns"),
                Reach("touches_p99.9_ns"),
            ),
            bench.pairs(),
        ),
        Rival(
            "bare loop that drains",
            lambda: scene.touch(BARE_FILLING, touching),
            (Reach("faults_p99_ns"), Reach("faults_p50_ns"), Reach("total_ns")),
            bench.pairs(),
        ),
    )


def cpu_per_gib(bench: Bench) -> Outcome:
    """What the daemon uses of the processors from when it is ready to the last page."""
    memory = layout(bench)
    scene = bench.handed_over(memory)
    wanted = (Reach("cpu_ns", 1.1),)
    loop = Rival("copy loop", lambda: bench.copy(memory, 1), wanted, bench.pairs())
    return race(lambda: scene.touch(ONE_WORKER, FILLED), loop, name="ours, 1 worker") + race(
        lambda: scene.touch(OURS, FILLED),
        loop,
        Rival("copy loop, 2 threads", lambda: bench.copy(memory, 2), wanted, bench.pairs()),
        name="ours, 2 workers",
    )


CASES = (
    Case("drain-alone", "1 GiB that nobody touches", drain_alone),
    Case(
        "drain-while-faulting",
        "faults at random while 1 GiB is filled",
        drain_while_faulting,
    ),
    Case("cpu-per-gib", "processor time to fill 1 GiB", cpu_per_gib),
)
