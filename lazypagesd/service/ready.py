"""Saying that a restore may connect, as ``criu lazy-pages`` says it.

Some facts about it, observed with CRIU 4.1.1:

- Every action script is run, the one that was given last first, also when another has failed.
- A script finds CRTOOLS_SCRIPT_ACTION=status-ready and CRTOOLS_IMAGE_DIR=/proc/PID/fd/N in its
  environment, runs in the work directory, has no input, and writes to the log.
- If any has failed, the daemon ends with 1, and nothing is written to the status descriptor.
- Else one zero byte is written to the status descriptor, which is then closed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from lazypagesd.errors import ConfigError

log = logging.getLogger(__name__)


def report_ready(
    *,
    action_scripts: Sequence[str],
    images_fd: int,
    status_fd: int | None,
    output_fd: int,
    beforehand: Callable[[], None] = lambda: None,
) -> None:
    """Run the action scripts, do what is to be done *beforehand*, and only then write one zero
    byte to *status_fd* and close it.

    Takes ownership of *status_fd*.  The scripts write to *output_fd*.  A script that fails raises
    ConfigError after the others have run; a *status_fd* that cannot be written to raises OSError.
    """
    run_action_scripts(action_scripts, images_fd=images_fd, output_fd=output_fd)
    beforehand()
    if status_fd is not None:
        _write_status(status_fd)


def run_action_scripts(scripts: Sequence[str], *, images_fd: int, output_fd: int) -> None:
    """Run every one of *scripts* in criu's order; ConfigError names all that failed, and how."""
    environment = os.environ | {
        "CRTOOLS_SCRIPT_ACTION": "status-ready",
        "CRTOOLS_IMAGE_DIR": f"/proc/{os.getpid()}/fd/{images_fd}",
    }
    failures = []
    for script in reversed(scripts):
        log.info("running action script %s", script)
        failure = _run(script, environment, output_fd)
        if failure:
            failures.append(f"{script}: {failure}")
    if failures:
        raise ConfigError(f"action script {'; '.join(failures)}")


def _run(script: str, environment: dict[str, str], output_fd: int) -> str | None:
    # Here, because few have a script, and all others would be ready later.
    import subprocess

    try:
        done = subprocess.run(
            [script],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            check=False,
        )
    except OSError as error:
        return f"cannot be run ({error.strerror})"
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    return f"exited with status {done.returncode}" if done.returncode else None


def _write_status(status_fd: int) -> None:
    try:
        os.write(status_fd, b"\0")
        os.close(status_fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"--status-fd {status_fd}") from error
