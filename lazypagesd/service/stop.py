"""What ExecStop= runs, as root and outside the sandbox: the end of the daemon, and of no page.

    python3 -I -m lazypagesd.service.stop UNIT

Some facts (tried with systemd 252):

- While a unit is stopped in order to be started again, its job is of type restart, and the
  descriptors that it has stored stay.
- A stop closes them, but not from systemd 254 on if FileDescriptorStorePreserve=yes.
- An ExecStop= that fails stops no less.  A restart that is asked for meanwhile takes the place of
  the stop: ``systemctl stop`` says that its job was canceled, and what is stored stays.  While the
  machine goes down that is refused.
- What has not ended when ExecStop= returns gets SIGTERM, which the daemon takes as the second one.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from lazypagesd.service import systemd

# How long pages may fail to come in, unless LAZYPAGESD_STOP_PATIENCE says otherwise.
PATIENCE_S = 30.0
LOOK_S = 1.0
# How long leaving may take, which is a matter of milliseconds.
LEAVE_S = 5.0
# Of everything that is done between two looks, by a machine that is busy.
SLACK_S = 30.0

WARNING, ERROR = 4, 3


@dataclass(frozen=True, slots=True)
class Manager:
    """The service manager, asked about *unit*."""

    unit: str

    def job(self) -> str:
        """Return the type of the unit's job, or nothing: then it goes down by itself."""
        for line in self._ask("list-jobs", "--no-legend", "--plain", self.unit).splitlines():
            match line.split():
                case [_, self.unit, kind, *_]:
                    return kind
        return ""

    def nr_missing(self) -> int | None:
        """Return how many pages the daemon says are missing, if it does."""
        found = re.search(r"(\d+) pages missing", self._show("StatusText"))
        return int(found[1]) if found else None

    def keeps(self) -> bool:
        """Whether a stop leaves what is stored where it is."""
        return self._show("FileDescriptorStorePreserve") == "yes"

    def restart_instead(self) -> bool:
        """Let the stop become a restart; return whether it does."""
        command = ["systemctl", "--no-block", "restart", self.unit]
        return subprocess.run(command, check=False).returncode == 0

    def _show(self, name: str) -> str:
        return self._ask("show", "--value", "--property", name, self.unit).strip()

    def _ask(self, *words: str) -> str:
        done = subprocess.run(
            ["systemctl", "--no-pager", *words], stdout=subprocess.PIPE, text=True, check=False
        )
        return done.stdout


def main() -> int:
    """End the daemon of $MAINPID, if it has not ended yet."""
    [unit] = sys.argv[1:]
    manager = Manager(unit)
    try:
        pid = int(os.environ["MAINPID"])
        pidfd = os.pidfd_open(pid)
    except (KeyError, ProcessLookupError):
        return 0
    if manager.job() == "stop":
        drain(manager, pidfd, patience_s())
    else:
        leave(pidfd)
    return 0


def patience_s() -> float:
    """Return how long pages may fail to come in."""
    return float(os.environ.get("LAZYPAGESD_STOP_PATIENCE", PATIENCE_S))


def leave(pidfd: int) -> None:
    """End the daemon at once, by force if need be; all that it serves stays in the store."""
    signal.pidfd_send_signal(pidfd, signal.SIGUSR2)
    if not wait(pidfd, LEAVE_S):
        say(WARNING, f"has not left in {LEAVE_S:g} s, killing it")
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def drain(manager: Manager, pidfd: int, patience: float) -> None:
    """End the daemon when everything is filled; if nothing more comes in, see to it that nothing
    is lost."""
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    missing, since = None, time.monotonic()
    while not wait(pidfd, LOOK_S):
        systemd.notify(os.environ, f"EXTEND_TIMEOUT_USEC={(patience + SLACK_S) * 1e6:.0f}")
        before, missing = missing, manager.nr_missing()
        if missing != before:
            since = time.monotonic()
        elif time.monotonic() - since > patience:
            give_up(manager, pidfd, f"{missing or 'some'} pages, and none came in {patience:g} s")
            return


def give_up(manager: Manager, pidfd: int, what: str) -> None:
    """End the daemon, though processes depend on it still; it has logged which."""
    if manager.keeps():
        say(WARNING, f"stopped early: processes wait for {what}; they go on at the next start")
        leave(pidfd)
    elif manager.restart_instead():
        say(ERROR, f"not stopped: processes would lose {what}; stop again when they have ended")
        leave(pidfd)
    else:
        say(ERROR, f"the machine goes down: processes lose {what}")


def wait(pidfd: int, timeout_s: float) -> bool:
    """Wait for the end of the process; return whether it has come."""
    return bool(select.select([pidfd], [], [], timeout_s)[0])


def say(level: int, message: str) -> None:
    """Let the journal have *message*, of which stderr is a stream."""
    print(f"<{level}>{message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
