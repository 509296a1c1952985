"""Checkpoint and restore with a real CRIU."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lazypagesd.demo.checkpoints import Checkpoints, Place
from lazypagesd.demo.trouble import Trouble
from lazypagesd.demo.victim import Victim

_DEADLINE_S = 60.0
_LOCAL = Path(".build/criu/criu")  # where tests/setup/get-criu.sh puts it


def find_criu() -> Path | str:
    """Return CRIU, or why there is none."""
    candidates = [os.environ.get("CRIU"), _LOCAL, shutil.which("criu")]
    found = [Path(path).absolute() for path in candidates if path and Path(path).exists()]
    if not found:
        return f"no CRIU in $CRIU, {_LOCAL} or PATH"
    if os.geteuid() != 0:
        return "CRIU needs root"
    check = subprocess.run(
        [found[0], "check"], capture_output=True, text=True, timeout=_DEADLINE_S, check=False
    )
    if check.returncode != 0:
        return f"{found[0]} does not work here: {_last_error(check.stderr + check.stdout)}"
    return found[0]


class CriuCheckpoints(Checkpoints):
    """CRIU as it is, told only to leave the memory to the daemon."""

    name = "CRIU"

    def __init__(self, criu: Path) -> None:
        self._criu = criu

    def checkpoint(self, victim: Victim, place: Place) -> None:
        """Run ``criu dump``, which kills the process."""
        self._run("dump", place, "-t", str(victim.pid))
        os.waitpid(victim.pid, 0)

    def restore(self, victim: Victim, place: Place) -> Victim:
        """Run ``criu restore --lazy-pages``; the process has the pid that it had."""
        self._run("restore", place, "--lazy-pages", "-d")
        return victim

    def _run(self, verb: str, place: Place, *options: str) -> None:
        log = f"{verb}.log"
        run = subprocess.run(
            [self._criu, verb, *options, "-D", place.images, "-W", place.work, "-o", log],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_DEADLINE_S,
            check=False,
        )
        if run.returncode != 0:
            text = (place.work / log).read_text(errors="replace")
            raise Trouble(f"criu {verb} failed: {_last_error(text)}")


def _last_error(log: str) -> str:
    errors = [line for line in log.splitlines() if "Error" in line]
    return " / ".join(errors[-2:]) or "it does not say why"
