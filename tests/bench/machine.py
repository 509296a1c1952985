"""The machine that something was measured on."""

from __future__ import annotations

import mmap
import os
import platform
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# <linux/mman.h>
MADV_POPULATE_WRITE = 23


@dataclass(frozen=True, slots=True)
class Machine:
    """What a figure cannot do without; *load* is that of the minute before."""

    cpu: str
    nr_cpus: int
    memory_gib: float
    kernel: str
    python: str
    criu: str
    load: float

    @classmethod
    def this(cls, criu: Path) -> Machine:
        """Return what this one is."""
        return cls(
            cpu=first(r"^model name\s*: (.*)$", "/proc/cpuinfo"),
            nr_cpus=len(os.sched_getaffinity(0)),
            memory_gib=round(int(first(r"^MemTotal:\s*(\d+)", "/proc/meminfo")) / 2**20, 1),
            kernel=platform.release(),
            python=platform.python_version(),
            criu=criu_version(criu),
            load=os.getloadavg()[0],
        )

    def __str__(self) -> str:
        """Say it in a sentence."""
        return (
            f"{self.nr_cpus} processors ({self.cpu}), {self.memory_gib:g} GiB,"
            f" Linux {self.kernel}, Python {self.python}, CRIU {self.criu},"
            f" load {self.load:.1f} at the start"
        )


def warm_memory(nr_bytes: int) -> None:
    """Take memory and free it, for who is next to find it where it is.

    A virtual machine gives its host what has been free for 2 s (free page reporting), and whoever
    uses it then waits for the host, for each 2 MiB.  What was freed last is used first.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, nr_bytes, flags=flags) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory.madvise(MADV_POPULATE_WRITE)


def interrupts() -> Counter[int]:
    """Count how often devices have interrupted each processor."""
    header, *lines = Path("/proc/interrupts").read_text().splitlines()
    cpus = [int(name.removeprefix("CPU")) for name in header.split()]
    found: Counter[int] = Counter()
    for irq, *counts in map(str.split, lines):
        if irq.rstrip(":").isdigit():  # or else it is a processor's own
            found.update(dict(zip(cpus, map(int, counts[: len(cpus)]), strict=True)))
    return found


def first(pattern: str, path: str) -> str:
    """Return what *pattern* finds first in a file."""
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1].strip() if found else "0"


def criu_version(criu: Path) -> str:
    """Return the version of CRIU, or why there is none."""
    try:
        said = subprocess.run([criu, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"none ({error})"
    found = re.search(r"^Version: (.*)$", said.stdout, re.MULTILINE)
    return found[1] if found else said.stdout
