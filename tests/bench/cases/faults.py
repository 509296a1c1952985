"""Faults one by one: nothing is filled but what is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.case import Case
from tests.bench.handlers import (
    BARE,
    BARE_POLLING,
    BARE_READING,
    OURS_LAZY,
    Handler,
    Serving,
    pinned,
)
from tests.bench.layout import MIB_PAGES, Layout
from tests.bench.machine import interrupts
from tests.bench.race import Outcome, Reach, Rival, limit, race
from tests.bench.scenes import Sample, Touching

# Between the touches of a program that faults often; now and then; and hardly ever.
OFTEN_NS = 100_000
SOMETIMES_NS = 500_000
SELDOM_NS = 5_000_000

# After the last fault a daemon may poll that long, and is then to be quiet for a second.
POLLING_S = 0.001
QUIET_S = 1.0
QUIET_CPU_NS = 1_000_000

READ_AT_RANDOM = """
import os, random, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
nr_pages = os.fstat(fd).st_size // 4096
print(end=".", flush=True)
while True:
    os.pread(fd, 4096, random.randrange(nr_pages) * 4096)
"""

# One processor for the daemon, and with it one worker for both sessions; and the other.
ONE_CPU = "0"
OTHER_CPU = "1"
OURS_LAZY_ON_ONE = replace(OURS_LAZY, cpus=ONE_CPU)


def layout(bench: Bench) -> Layout:
    """Return memory that is larger than what is touched of it."""
    return Layout(bench.pick(256 * MIB_PAGES, MIB_PAGES))


def quiet_cpu(serving: Serving) -> Sample:
    """Measure what is used of the processors when nobody has faulted for a millisecond."""
    time.sleep(POLLING_S)
    before = serving.cpu_ns
    time.sleep(QUIET_S)
    return {"quiet_cpu_ns": serving.cpu_ns - before}


def lone_fault(bench: Bench) -> Outcome:
    """Nobody else uses the processors, and the program uses one: the other sleeps.

    A program that sleeps as well is shown beside it, since a kernel may put a worker that is
    woken on the processor of whoever wakes it, and neither has to be woken then.
    """
    scene = bench.handed_over(layout(bench))
    nr_touches, nr_seldom = bench.pick(1000, 50), bench.pick(100, 10)
    shown = Reach("faults_p50_ns")
    wanted = Reach("faults_p50_ns", 0.35)

    def beside(name: str, touching: Touching, *rivals: tuple[str, Handler, Reach]) -> Outcome:
        look = None if bench.small else quiet_cpu
        return race(
            lambda: scene.touch(OURS_LAZY, touching, look=look),
            *(
                Rival(who, partial(scene.touch, handler, touching), (reach,), bench.pairs())
                for who, handler, reach in rivals
            ),
            name=f"ours, {name}",
        )

    both = ("bare loop", BARE, wanted), ("bare loop that polls", BARE_POLLING, shown)
    often = Touching("random", 1, nr_touches, OFTEN_NS)
    sometimes = Touching("random", 1, nr_touches, SOMETIMES_NS)
    seldom = Touching("random", 1, nr_seldom, SELDOM_NS)
    sleeper = Touching("random", 1, nr_touches, SOMETIMES_NS, asleep=True)
    outcome = (
        beside("0.1 ms apart", often, *both)
        + beside("0.5 ms apart", sometimes, *both)
        + beside("5 ms apart", seldom, ("bare loop", BARE, shown))
        + beside("asleep for 0.5 ms", sleeper, ("bare loop", BARE, shown))
    )
    samples = [sample for taken in outcome.samples.values() for sample in taken]
    quiet = [sample["quiet_cpu_ns"] for sample in samples if "quiet_cpu_ns" in sample]
    rows = (limit(quiet, "quiet_cpu_ns", QUIET_CPU_NS),) if quiet else ()
    return outcome + Outcome(rows)


@contextlib.contextmanager
def hogs(*cpus: str) -> Iterator[None]:
    """Keep each of *cpus* from sleeping, at the lowest priority."""
    command = ["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"]
    running = [subprocess.Popen([*pinned(cpu), *command]) for cpu in cpus]
    try:
        yield
    finally:
        for hog in running:
            hog.kill()
            hog.wait()


def busy_fault(bench: Bench) -> Outcome:
    """No processor ever sleeps: each has something less urgent to do.

    Whether the program and its handler are on one processor matters more than anything that
    either does, and the kernel lets it stay as it happens to begin.  So both ways are measured.
    """
    scene = bench.handed_over(layout(bench))
    nr_touches = bench.pick(20_000, 50)

    def beside(name: str, cpus: str) -> Outcome:
        touching = Touching("random", 1, nr_touches, cpus=cpus)
        return race(
            lambda: scene.touch(OURS_LAZY_ON_ONE, touching),
            Rival(
                "bare loop",
                lambda: scene.touch(replace(BARE, cpus=ONE_CPU), touching),
                (Reach("faults_p50_ns", 1.15), Reach("faults_p99_ns", 1.5)),
                bench.pairs(),
            ),
            Rival(
                "bare loop that reads",
                lambda: scene.touch(replace(BARE_READING, cpus=ONE_CPU), touching),
                (Reach("faults_p50_ns"),),
                bench.pairs(),
            ),
            name=f"ours, {name}",
        )

    with hogs(ONE_CPU, OTHER_CPU):
        return beside("on one processor", ONE_CPU) + beside("on two processors", OTHER_CPU)


def warm(*files: Path) -> None:
    """Bring files into the page cache."""
    for file in files:
        with file.open("rb") as opened:
            while opened.read(1 << 20):
                pass


def drop(file: Path) -> None:
    """Take a file, which has been synced, out of the page cache."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cpu_of_disk(file: Path) -> str:
    """Return which of the two processors the disk interrupts when *file* is read."""
    drop(file)
    before = interrupts()
    warm(file)
    return max(ONE_CPU, OTHER_CPU, key=lambda cpu: interrupts()[int(cpu)] - before[int(cpu)])


@contextlib.contextmanager
def reading(file: Path, cpu: str) -> Iterator[None]:
    """Have a process wait for the disk all the time, as a reader of ours would, for pages of a
    *file* that is in no cache."""
    command = [*pinned(cpu), "nice", "-n", "10", sys.executable, "-c", READ_AT_RANDOM]
    process = subprocess.Popen([*command, file], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.read(1)
        yield
    finally:
        process.kill()
        process.communicate()


def cold_file(bench: Bench) -> Outcome:
    """A thread faults beside one whose pages have to come from the disk, in the same worker.

    Each has a session of its own.  The rival is the same, with both files in the page cache;
    beside it is shown what the disk costs by itself, read by somebody else.

    Two things would be taken for the worker's doing.  The disk interrupts a processor: that is
    the worker's here, and the threads are on the other.  And of a thread that waits for the disk
    the processor sleeps: so here it does not, and whoever is woken runs at once.  An idle machine,
    with the threads wherever they are put, is shown as well.
    """
    scene = bench.handed_over(Layout(bench.pick(512 * MIB_PAGES, MIB_PAGES), nr_sessions=2))
    files = sorted(scene.images.glob("pages-*.img"))
    other = scene.images / "read-by-others"
    shutil.copyfile(files[1], other)
    os.sync()
    disk_cpu = cpu_of_disk(other)
    ours = replace(OURS_LAZY, cpus=disk_cpu)
    anywhere = Touching("random", 2, bench.pick(20_000, 50), own=True)
    # Nothing is measured at a small size, and a container may have no real time to give.
    apart = replace(
        anywhere,
        cpus=OTHER_CPU if disk_cpu == ONE_CPU else ONE_CPU,
        at_once=not bench.small,
    )

    def beside(touching: Touching, *cold: Path) -> Sample:
        warm(*files)
        for file in cold:
            drop(file)
        return scene.touch(ours, touching)

    def beside_reader() -> Sample:
        drop(other)
        with reading(other, disk_cpu):
            return beside(replace(apart, nr_threads=1, own=False))

    def beside_cold(name: str, touching: Touching, wanted: Reach, *rivals: Rival) -> Outcome:
        shown = Reach("faults_p50_ns"), Reach("other_faults_p50_ns")
        return race(
            lambda: beside(touching, files[1]),
            Rival("ours, all warm", lambda: beside(touching), (wanted, *shown), bench.pairs()),
            *rivals,
            name=f"ours, {name}",
        )

    reader = Rival(
        "ours, warm, a process reads cold",
        beside_reader,
        (Reach("faults_p99_ns"),),
        bench.pairs(),
    )
    with hogs(ONE_CPU, OTHER_CPU):
        busy = beside_cold("busy machine", apart, Reach("faults_p99_ns", 1.2), reader)
    return busy + beside_cold("idle machine", anywhere, Reach("faults_p99_ns"))


CASES = (
    Case("lone-fault", "a fault on an idle machine, drain off", lone_fault),
    Case("busy-fault", "a fault on a busy machine, drain off", busy_fault),
    Case("cold-file", "faults beside a session that waits for the disk", cold_file),
)
