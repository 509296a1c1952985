"""A process that CRIU restores, and that touches all of its memory straight afterwards."""

from __future__ import annotations

from tests.bench.bench import Bench
from tests.bench.case import Case
from tests.bench.handlers import BARE_FILLING, CRIU, OURS
from tests.bench.layout import GIB_PAGES, MIB_PAGES, Layout
from tests.bench.race import OURS as OURS_NAME
from tests.bench.race import Outcome, Reach, Rival, race
from tests.bench.scenes import Touching

SMALL_PAGES = 2 * MIB_PAGES
RANDOM = Touching("random")
SEQUENTIAL = Touching("sequential")
WITHIN_BARE = 1.2
# With criu, whose turns may take minutes.
PATIENCE_S = 10.0


def restored(
    bench: Bench,
    layout: Layout,
    touching: Touching,
    *,
    criu: float,
    bare: float | None = WITHIN_BARE,
    nr_pairs: int = 5,
    nr_criu_pairs: int = 5,
    patience_s: float = PATIENCE_S,
    name: str = OURS_NAME,
) -> Outcome:
    """Restore a process with ours, with criu and with the bare loop, and touch all of it."""
    scene = bench.dumped(layout)
    return race(
        lambda: scene.touch(OURS, touching),
        Rival(
            "criu",
            lambda: scene.touch(CRIU, touching, patience_s=patience_s),
            (Reach("total_ns", criu),),
            bench.pairs(nr_criu_pairs),
        ),
        Rival(
            "bare loop",
            lambda: scene.touch(BARE_FILLING, touching),
            (Reach("total_ns", bare),),
            bench.pairs(nr_pairs),
        ),
        name=name,
    )


def dense(bench: Bench, mib: int = 1024) -> Layout:
    """Return memory without a hole."""
    return Layout(bench.pick(mib * MIB_PAGES, SMALL_PAGES))


def fragmented(bench: Bench) -> Outcome:
    """Every other page is present; criu takes a minute, on a machine that is quick."""
    layout = Layout(bench.pick(GIB_PAGES // 2, 256), run=1)
    return restored(bench, layout, RANDOM, criu=1 / 100, nr_criu_pairs=3, patience_s=60)


def dense_2threads(bench: Bench) -> Outcome:
    """Two threads touch one process's memory."""
    touching = Touching("random", nr_threads=2)
    return restored(bench, dense(bench), touching, criu=1 / 10, nr_criu_pairs=3)


def dense_random(bench: Bench) -> Outcome:
    """One does, at random."""
    return restored(bench, dense(bench), RANDOM, criu=1 / 3)


def dense_sequential(bench: Bench) -> Outcome:
    """One does, in order."""
    return restored(bench, dense(bench), SEQUENTIAL, criu=1 / 1.3)


def dense_256m(bench: Bench) -> Outcome:
    """Less memory, where what goes before counts more."""
    layout = dense(bench, 256)
    in_order = restored(bench, layout, SEQUENTIAL, criu=1.0, bare=None, name="ours, in order")
    at_random = restored(bench, layout, RANDOM, criu=1.0, bare=None, name="ours, at random")
    return in_order + at_random


def dense_4g(bench: Bench) -> Outcome:
    """More memory; three turns."""
    layout = dense(bench, 4096)
    return restored(bench, layout, SEQUENTIAL, criu=1.0, bare=None, nr_pairs=3, nr_criu_pairs=3)


CASES = (
    Case(
        "fragmented",
        "1 GiB, every other page present, in random order",
        fragmented,
        needs_criu=True,
    ),
    Case("dense-2threads", "1 GiB, random order, 2 threads", dense_2threads, needs_criu=True),
    Case("dense-random", "1 GiB, random order, 1 thread", dense_random, needs_criu=True),
    Case("dense-sequential", "1 GiB in order, 1 thread", dense_sequential, needs_criu=True),
    Case("dense-256m", "256 MiB in order, and at random", dense_256m, needs_criu=True),
    Case("dense-4g", "4 GiB in order", dense_4g, needs_criu=True),
)
