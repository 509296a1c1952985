"""Going to the background as ``criu lazy-pages --daemon`` does.

Some facts about it, observed with CRIU 4.1.1:

- The fork comes after the socket listens, so that whoever waits for the command to return may
  connect.
- The child is the leader of a session of its own, stays in the work directory, and has /dev/null
  for 0, 1 and 2.
- The parent writes the pid file: the child's pid in decimal, no newline, mode 0600, and never over
  another file. If it cannot, the child is killed and the exit code is 1.  Else the parent exits
  with 0.

In one thing we are stricter: the child goes on only after the pid file is there, so that whoever
is told that we are ready will find it.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from lazypagesd.errors import SessionError


def daemonize(*, pidfile: str | None) -> None:
    """Go on in a child, in the background; return there only.

    The caller has no threads yet.  The parent exits with 0, or raises OSError when it cannot write
    *pidfile*; no child is left then.
    """
    told_fd, tell_fd = os.pipe()
    child = os.fork()
    if child:
        os.close(told_fd)
        _parent(child, tell_fd, pidfile)
    os.close(tell_fd)
    _child(told_fd)


def _parent(child: int, tell_fd: int, pidfile: str | None) -> NoReturn:
    try:
        if pidfile is not None:
            write_pidfile(pidfile, child)
        os.write(tell_fd, b"\0")
    except OSError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(tell_fd)
    # Not sys.exit(): what this process would tidy up on its way out is the child's now.
    os._exit(0)


def _child(told_fd: int) -> None:
    os.setsid()
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in 0, 1, 2:
        os.dup2(null_fd, fd)
    if null_fd > 2:
        os.close(null_fd)
    told = os.read(told_fd, 1)
    os.close(told_fd)
    if not told:
        raise SessionError("daemon: the parent died before it could write the pid file")


def write_pidfile(path: str, pid: int) -> None:
    """Create *path* with *pid* in it; a file that is already there raises FileExistsError."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, str(pid).encode())
    finally:
        os.close(fd)
