"""Who answers the faults: a command that says when it is ready, and ends when all is filled."""

from __future__ import annotations

import os
import resource
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lazypagesd.closing import Closing
from lazypagesd.images.checkpoint import Checkpoint
from tests.service.daemon import kill_group

# To see that a process sleeps, and does not merely wait for the next block of a file.
NR_LOOKS = 5
LOOK_S = 0.002
DEADLINE_S = 600.0
REGION = struct.Struct("=3Q")  # struct region of bare.c


class BenchError(Exception):
    """A run that is no measurement: somebody failed, or a page was wrong."""


class Programs(Protocol):
    """Where the programs of the benchmark are; a `Bench`."""

    criu: Path

    def program(self, name: str) -> Path:
        """Return the program that was compiled from *name*.c."""


class Handler(Protocol):
    """One that serves CRIU's hand-off in its current directory."""

    @property
    def cpus(self) -> str:
        """The processors that it may run on, as taskset has them; empty: all."""

    def command(self, programs: Programs, images: Path, status_fd: int) -> list[str | Path]:
        """Return the command that serves *images*, and writes a byte to *status_fd*."""


@dataclass(frozen=True, slots=True)
class Ours:
    """``lazypagesd lazy-pages`` as it is by default, but for *options*."""

    options: tuple[str, ...] = ()
    cpus: str = ""

    def command(self, programs: Programs, images: Path, status_fd: int) -> list[str | Path]:
        """Return the command."""
        lazypagesd = [sys.executable, "-m", "lazypagesd", "--no-default-config", "lazy-pages"]
        return [*lazypagesd, "-D", images, "-W", ".", "--status-fd", str(status_fd), *self.options]


@dataclass(frozen=True, slots=True)
class Criu:
    """``criu lazy-pages`` of the CRIU that restores."""

    cpus: str = ""

    def command(self, programs: Programs, images: Path, status_fd: int) -> list[str | Path]:
        """Return the command."""
        criu: list[str | Path] = [programs.criu, "--no-default-config", "lazy-pages"]
        return [*criu, "-D", images, "-W", ".", "--status-fd", str(status_fd)]


@dataclass(frozen=True, slots=True)
class Bare:
    """The least that a handler can do (bare.c), with what little it can be asked for."""

    neighbourhood: bool = False
    drain: bool = False
    poll: bool = False
    read: bool = False
    cpus: str = ""

    def command(self, programs: Programs, images: Path, status_fd: int) -> list[str | Path]:
        """Return the command."""
        wanted = {
            "-n": self.neighbourhood,
            "-d": self.drain,
            "-p": self.poll,
            "-r": self.read,
        }
        flags = [flag for flag, is_wanted in wanted.items() if is_wanted]
        return [
            programs.program("bare"),
            *flags,
            "-s",
            str(status_fd),
            *write_flat_list(images),
        ]


# What answers but what is asked for, and what fills the rest as well.
OURS = Ours()
OURS_LAZY = Ours(("--drain", "lazy"))
CRIU = Criu()
BARE = Bare()
BARE_POLLING = Bare(poll=True)
BARE_READING = Bare(read=True)
BARE_FILLING = Bare(neighbourhood=True, drain=True)


def write_flat_list(images: Path) -> tuple[Path, Path]:
    """Return where the flat list of regions and the pages file of the one process are."""
    directory = os.open(images, os.O_RDONLY)
    try:
        with Checkpoint.open(directory) as checkpoint:
            page_map = checkpoint.page_map(checkpoint.tasks[0].pid)
            path = images / "regions.bin"
            if not path.exists():
                regions = [REGION.pack(r.start, r.nr_pages, r.offset) for r in page_map]
                path.write_bytes(b"".join(regions))
            return path, images / page_map.sources[0].name
    finally:
        os.close(directory)


def pinned(cpus: str) -> list[str]:
    """Return what goes before a command that may run on *cpus* alone; empty: on all."""
    return ["taskset", "-c", cpus] if cpus else []


def children_cpu_ns() -> int:
    """Return what processes that have been waited for have used of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((used.ru_utime + used.ru_stime) * 1e9)


class Serving(Closing):
    """One run of a handler in a directory of its own, which is ready when this has been made."""

    def __init__(self, programs: Programs, handler: Handler, images: Path, work: Path) -> None:
        self.ready_ns = 0
        self._log = work / "handler.log"
        status_fd, write_fd = os.pipe()
        command = [*pinned(handler.cpus), *handler.command(programs, images, write_fd)]
        self._cpu_of_others_ns = children_cpu_ns()
        start_ns = time.monotonic_ns()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write_fd],
                process_group=0,
            )
        os.close(write_fd)
        try:
            self._wait_ready(status_fd)
        finally:
            os.close(status_fd)
        self.ready_ns = time.monotonic_ns() - start_ns
        self._cpu_at_start_ns = self._cpu_clock_ns()

    def _wait_ready(self, status_fd: int) -> None:
        ready = select.select([status_fd], [], [], DEADLINE_S)[0] and os.read(status_fd, 1)
        if ready != b"\0":
            self.close()
            raise BenchError(f"{self.command}: does not get ready: {self._log.read_text()}")

    @property
    def command(self) -> str:
        """What was started."""
        args = self.process.args
        assert isinstance(args, Sequence)
        return " ".join(map(str, args))

    def settle(self) -> None:
        """Wait until it has nothing to do but to wait, as while CRIU makes the processes."""
        nr_asleep = 0
        end = time.monotonic() + DEADLINE_S
        while nr_asleep < NR_LOOKS:
            time.sleep(LOOK_S)
            self.check()
            if time.monotonic() > end:
                raise BenchError(f"{self.command}: never sleeps")
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
            nr_asleep = nr_asleep + 1 if stat.rpartition(")")[2].split()[0] == "S" else 0
        self._cpu_at_start_ns = self._cpu_clock_ns()

    @property
    def cpu_ns(self) -> int:
        """What its threads have used of the processors since it was ready, or has settled."""
        return self._cpu_clock_ns() - self._cpu_at_start_ns

    def _cpu_clock_ns(self) -> int:
        # Of any process, exact to the moment (man 3 clock_getcpuclockid): CPUCLOCK_SCHED is 2.
        try:
            return time.clock_gettime_ns(~self.process.pid << 3 | 2)
        except OSError:
            # It has ended, as the only one of ours since it was started.
            self.process.wait(DEADLINE_S)
            return children_cpu_ns() - self._cpu_of_others_ns

    def pss(self) -> int:
        """Return its share of memory, in bytes: its own, and its part of what others map, too."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        [line] = [line for line in rollup.splitlines() if line.startswith("Pss:")]
        return int(line.split()[1]) << 10

    def wait(self) -> None:
        """Wait until it has ended, which is well; what it served has ended before."""
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.command}: does not end") from None
        self.check()

    def check(self) -> None:
        """Fail if it has."""
        if code := self.process.poll():
            raise BenchError(f"{self.command}: exit code {code}: {self._log.read_text()}")

    def close(self) -> None:
        """End it, and its keeper."""
        kill_group(self.process.pid)
        self.process.kill()
        self.process.wait(DEADLINE_S)
