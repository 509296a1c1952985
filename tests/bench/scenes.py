"""A process that is restored, again and again, and touches its pages: what it says is a sample."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.bench.handlers import DEADLINE_S, BenchError, Handler, Serving, pinned
from tests.bench.layout import Layout
from tests.bench.machine import warm_memory
from tests.criu.harness import Bed

if TYPE_CHECKING:
    from tests.bench.bench import Bench

Sample = Mapping[str, float]
# Of a sample whose total is that of the one who lost patience.
UNFINISHED = "unfinished"
# What is measured of a handler once all has been touched, while the process still lives.
Look = Callable[[Serving], Sample]

# A pid namespace, for a pid may have been given to somebody else since; it ends with unshare.
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
FOREVER = '"$@" && exec sleep infinity'


@dataclass(frozen=True, slots=True)
class Touching:
    """How pages are touched: see toucher.h.  *nr_touches* of 0 are one for each page.

    Between two of its touches a thread computes for *pause_ns*, or sleeps if it is *asleep*.
    With *own* each thread has a session, of as many touches, until the first thread is done.
    A process that hands itself over may run on *cpus* alone, if there are any; *at_once*, it runs
    as soon as it is woken, whoever else would like to.
    """

    order: str = "random"
    nr_threads: int = 1
    nr_touches: int = 0
    pause_ns: int = 0
    asleep: bool = False
    own: bool = False
    cpus: str = ""
    at_once: bool = False

    def words(self, layout: Layout, *, linger: bool = False) -> list[str]:
        """Return what toucher.c is told."""
        how = "own" if self.own else "linger" if linger else "end"
        numbers = self.nr_threads, self.touches(layout), self.pause_ns
        return [self.order, *map(str, numbers), "sleep" if self.asleep else "work", how]

    def touches(self, layout: Layout) -> int:
        """Return how many pages each order has."""
        return self.nr_touches or (layout.session_pages if self.own else layout.nr_pages)


# Touch nothing, and wait until all is there.
FILLED = Touching("wait")


class Scene(Protocol):
    """A process, and its images."""

    images: Path

    def touch(self, handler: Handler, touching: Touching) -> Sample:
        """Restore it once, with *handler*, and return what it says."""


def checked(said: str, layout: Layout, touching: Touching) -> dict[str, float]:
    """Return the sample that is in *said*, if each page that was to be looked at was right."""
    sample: dict[str, float] = json.loads(said)
    if sample["nr_wrong"]:
        raise BenchError(f"{sample['nr_wrong']} pages are wrong")
    expected = touching.touches(layout)
    if sample["nr_touches"] != expected and not touching.own:
        raise BenchError(f"{sample['nr_touches']} pages were touched, not {expected}")
    return sample


def figures_of(serving: Serving) -> dict[str, float]:
    """Return what a handler has needed so far."""
    return {"ready_ns": serving.ready_ns, "cpu_ns": serving.cpu_ns}


def unfinished(patience_s: float) -> Sample:
    """Return the sample of a restore that nobody has waited for any longer."""
    return {"total_ns": patience_s * 1e9, UNFINISHED: 1.0, "nr_wrong": 0, "nr_touches": 0}


class HandedOver:
    """A process that does itself what ``criu restore`` does for it, as one or many sessions."""

    def __init__(self, bench: Bench, layout: Layout, directory: Path) -> None:
        self._bench = bench
        self._layout = layout
        self.images = directory
        layout.write(directory)
        bench.run("toucher", "write", directory, *layout.words)
        os.sync()

    def touch(
        self,
        handler: Handler,
        touching: Touching,
        *,
        before: Callable[[Serving], None] | None = None,
        look: Look | None = None,
    ) -> Sample:
        """Hand over, touch, and let *look* measure the handler while the process lingers.

        *before* is called when the handler is ready, and nothing has been handed over.
        """
        with (
            tempfile.TemporaryDirectory(dir=self._bench.directory) as name,
            Serving(self._bench, handler, self.images, Path(name)) as serving,
        ):
            serving.settle()
            if before is not None:
                before(serving)
            warm_memory(self._layout.used_bytes)
            process = self._start(touching, Path(name), linger=look is not None)
            try:
                said, figures = listen(process, serving)
                sample = checked(said, self._layout, touching) | figures
                if look is not None:
                    sample |= look(serving)
                    process.kill()
                process.wait(DEADLINE_S)
                serving.wait()
            finally:
                process.kill()
                process.communicate()
            return sample

    def _start(self, touching: Touching, work: Path, *, linger: bool) -> subprocess.Popen[str]:
        program = self._bench.program("toucher")
        words = touching.words(self._layout, linger=linger)
        scheduled = ["chrt", "--fifo", "1"] if touching.at_once else []
        return subprocess.Popen(
            [*pinned(touching.cpus), *scheduled, program, "handoff", *self._layout.words, *words],
            cwd=work,
            stdout=subprocess.PIPE,
            text=True,
        )


class Dumped:
    """A process that was dumped by CRIU, and is restored by ``criu restore --lazy-pages``."""

    def __init__(self, bench: Bench, layout: Layout, directory: Path) -> None:
        self._bench = bench
        self._layout = layout
        self._bed = Bed(bench.criu, [], directory)
        self.images = self._bed.images
        dumped = directory / "dumped"
        # Which Bed starts with the directory of what it says before anything else.
        dumped.write_text(f'#!/bin/sh\nexec "{bench.program("toucher")}" dumped "$@"\n')
        dumped.chmod(0o700)
        self._bed.start(dumped, *layout.words)
        self._bed.dump()
        os.sync()

    def touch(
        self, handler: Handler, touching: Touching, *, patience_s: float | None = None
    ) -> Sample:
        """Restore it; it begins with its first instruction.

        Who has not finished after *patience_s* is a sample as well; without, that is a failure.
        """
        result = self._bed.out / "result"
        result.unlink(missing_ok=True)
        (self._bed.out / "go").write_text(" ".join(touching.words(self._layout)))
        work = Path(tempfile.mkdtemp(dir=self._bench.directory))
        warm_memory(self._layout.used_bytes)
        with Serving(self._bench, handler, self.images, work) as serving:
            restored = subprocess.Popen(
                [*NAMESPACE, "sh", "-c", FOREVER, "sh", *self._restore(work)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                if not wait_for(
                    result, restored, work, DEADLINE_S if patience_s is None else patience_s
                ):
                    if patience_s is None:
                        raise BenchError(f"{serving.command}: the process waits for ever")
                    return unfinished(patience_s)
                sample = checked(result.read_text(), self._layout, touching)
                sample |= figures_of(serving)
            finally:
                restored.kill()
                restored.wait(DEADLINE_S)
        shutil.rmtree(work)
        return sample

    def _restore(self, work: Path) -> list[str | Path]:
        options = ["restore", "--lazy-pages", "-d", "-o", "restore.log"]
        return [self._bench.criu, *options, "-D", self.images, "-W", work]

    def close(self) -> None:
        """Remove it."""
        with contextlib.redirect_stdout(io.StringIO()):  # the end of each log, for a test
            self._bed.close()


def listen(process: subprocess.Popen[str], serving: Serving) -> tuple[str, dict[str, float]]:
    """Return what the process says, and what the handler had needed when it began to: it has its
    pages then, and may still look at them.  Fail if who serves it has failed."""
    assert process.stdout is not None
    end = time.monotonic() + DEADLINE_S
    while not select.select([process.stdout], [], [], 0.5)[0]:
        serving.check()
        if time.monotonic() > end:
            raise BenchError(f"{serving.command}: the process waits for ever")
    figures = figures_of(serving)
    return process.stdout.readline(), figures


def wait_for(
    result: Path, restored: subprocess.Popen[bytes], work: Path, patience_s: float
) -> bool:
    """Return whether *result* is there in time; fail if the restore has."""
    end = time.monotonic() + patience_s
    while not result.exists():
        if restored.poll() is not None:
            log = work / "restore.log"
            tail = log.read_text(errors="replace")[-1000:] if log.exists() else "no log"
            raise BenchError(f"criu restore: no result: {tail}")
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
