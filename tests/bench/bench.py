"""Where the cases run: a directory, the compiled programs, CRIU, and how large all is to be."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import lazypagesd
from lazypagesd.closing import Closing
from tests.bench.handlers import BenchError, pinned
from tests.bench.layout import Layout
from tests.bench.machine import warm_memory
from tests.bench.scenes import Dumped, HandedOver, Sample

SOURCES = Path(__file__).parent
REPOSITORY = SOURCES.parents[1]
PROGRAMS = {
    "toucher": ("toucher.c", "touch.c", "handoff.c"),
    "bare": ("bare.c",),
    "copyloop": ("copyloop.c",),
}
COMPILE = ("cc", "-std=gnu17", "-O3", "-Wall", "-Wextra", "-Werror", "-pthread", "-o")

T = TypeVar("T")


class Bench(Closing):
    """Makes each scene once, for all cases that want it, and removes all in the end."""

    def __init__(self, *, small: bool = False, most_pairs: int = 1000) -> None:
        """Prepare a bench, whose scenes are *small* where only their correctness counts.

        Nobody has more than *most_pairs* turns.
        """
        self.small = small
        self._most_pairs = most_pairs
        self.criu = Path(os.environ.get("CRIU") or REPOSITORY / ".build/criu/criu")
        self._stack = contextlib.ExitStack()
        name = tempfile.mkdtemp(prefix="lazypagesd-bench-")
        self.directory = Path(name)
        self._stack.callback(subprocess.run, ["rm", "-rf", name], check=True)
        self._handed_over: dict[Layout, HandedOver] = {}
        self._dumped: dict[Layout, Dumped] = {}
        for program, sources in PROGRAMS.items():
            paths = [SOURCES / source for source in sources]
            command: list[str | Path] = [*COMPILE, self.program(program), *paths]
            subprocess.run(command, check=True, timeout=60)
        # As pip does, or PYTHONDONTWRITEBYTECODE would have each start compile it anew.
        compileall.compile_dir(Path(lazypagesd.__file__).parent, quiet=1)
        # A session is a descriptor, here and in whoever serves.
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def pick(self, full: T, small: T) -> T:
        """Return what goes with the size that was asked for."""
        return small if self.small else full

    def pairs(self, full: int = 5) -> int:
        """Return how many turns everybody has."""
        return min(self.pick(full, 1), self._most_pairs)

    def program(self, name: str) -> Path:
        """Return the program that was compiled from *name*.c."""
        return self.directory / name

    def run(self, program: str, *words: str | Path, cpus: str = "") -> str:
        """Run a program to its end, and return what it says."""
        done = subprocess.run(
            [*pinned(cpus), self.program(program), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"{program}: exit code {done.returncode}: {done.stderr}")
        return done.stdout

    def copy(self, layout: Layout, nr_threads: int, *, cpus: str = "") -> Sample:
        """Fill the memory of a dense layout with a plain loop of UFFDIO_COPY."""
        [pages] = self.handed_over(layout).images.glob("pages-*.img")
        warm_memory(layout.used_bytes)
        said = self.run("copyloop", pages, str(layout.nr_pages), str(nr_threads), cpus=cpus)
        sample: Sample = json.loads(said)
        if sample["nr_wrong"]:
            raise BenchError(f"copyloop: {sample['nr_wrong']} pages are wrong")
        return sample

    def handed_over(self, layout: Layout) -> HandedOver:
        """Return a process that hands itself over."""
        return self._scene(self._handed_over, HandedOver, layout)

    def dumped(self, layout: Layout) -> Dumped:
        """Return a process that CRIU has dumped."""
        is_new = layout not in self._dumped
        scene = self._scene(self._dumped, Dumped, layout)
        if is_new:
            self._stack.callback(scene.close)
        return scene

    def _scene(
        self,
        scenes: dict[Layout, T],
        make: Callable[[Bench, Layout, Path], T],
        layout: Layout,
    ) -> T:
        if layout not in scenes:
            directory = self.directory / f"{make.__name__}-{layout.name}"
            scenes[layout] = make(self, layout, directory)
        return scenes[layout]

    def close(self) -> None:
        """Remove everything."""
        self._stack.close()
