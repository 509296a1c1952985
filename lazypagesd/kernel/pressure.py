"""What the machine is short of, by its pressure stall information.

Some facts (Documentation/accounting/psi.rst): /proc/pressure/memory and io have a line ``some
avg10=1.25 avg60=0.90 avg300=0.33 total=104913``: the percentage of the last 10, 60 and 300 seconds
in which at least one task waited for it, worked out anew every two seconds. A kernel without
CONFIG_PSI has no such files; one that was started with psi=0 has them, and refuses to read them.
"""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path("/proc/pressure")
RESOURCES = ("memory", "io")


def parse_some_avg10(text: str) -> float:
    """Return avg10 of the line ``some``, in percent.  Raises ValueError if there is none."""
    for line in text.splitlines():
        match line.split():
            case ["some", str(avg10), *_] if avg10.startswith("avg10="):
                return float(avg10.removeprefix("avg10="))
    raise ValueError(f"pressure: has no average of ten seconds ({text!r})")


def read_worst(directory: Path = DIRECTORY) -> float:
    """Return the worst pressure in percent: 0 where the kernel does not tell."""
    return max(_read(directory / resource) for resource in RESOURCES)


def _read(path: Path) -> float:
    try:
        return parse_some_avg10(path.read_text())
    except OSError:
        return 0.0
