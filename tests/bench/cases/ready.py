"""How long a restore has to wait for the handler."""

from __future__ import annotations

from tests.bench.bench import Bench
from tests.bench.case import Case
from tests.bench.handlers import CRIU, OURS
from tests.bench.layout import MIB_PAGES, Layout
from tests.bench.race import Outcome, Reach, Rival, limit, race
from tests.bench.scenes import FILLED

READY_NS = 120_000_000


def ready(bench: Bench) -> Outcome:
    """From the start of the command to the status byte, with a small checkpoint."""
    scene = bench.handed_over(Layout(MIB_PAGES))
    outcome = race(
        lambda: scene.touch(OURS, FILLED),
        Rival(
            "criu",
            lambda: scene.touch(CRIU, FILLED),
            (Reach("ready_ns"),),
            bench.pairs(11),
        ),
    )
    taken = [sample["ready_ns"] for sample in outcome.samples["ours"]]
    return Outcome((limit(taken, "ready_ns", READY_NS),)) + outcome


CASES = (Case("ready", "from the start to the status byte", ready, needs_criu=True),)
