"""What fuzzing begins with: bytes of which Hypothesis makes arguments of many kinds."""

from __future__ import annotations

import random
from pathlib import Path

NR_SEEDS = 64


def write_seeds(directory: Path) -> Path:
    """Put seeds into *directory*, beside what fuzzing has kept there before; return it.

    Zeros choose the first of everything: a valid image, no change, a right hand-off.  The others
    are the same on every machine.
    """
    directory.mkdir(parents=True, exist_ok=True)
    numbers = random.Random(0)
    for i in range(NR_SEEDS):
        data = bytes(256) if i == 0 else numbers.randbytes(16 * (1 + i % 32))
        (directory / f"seed-{i:02}").write_bytes(data)
    return directory
