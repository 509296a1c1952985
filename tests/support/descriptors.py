"""What a process has open."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def descriptors(pid: int | str = "self") -> dict[str, str]:
    """Return the descriptors of a process, by default of this one, and what each is open on."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed a moment ago, as the directory's own
            found[path.name] = os.fspath(path.readlink())
    return found
