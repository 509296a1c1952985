"""Stopping single threads of another process, which no signal does: a debugger's way."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from pathlib import Path

from tests.service.daemon import wait_until

# sys/ptrace.h, and __WALL of sys/wait.h
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
WAIT_FOR_THREADS = 0x40000000

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def hang_workers(pid: int) -> list[int]:
    """Stop every thread of process *pid* but its first; return them.

    One that ends meanwhile, as those do that look at a hand-off's files, is none of them.
    """
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    threads.remove(pid)
    return [thread for thread in threads if stop(thread)]


def stop(thread: int) -> bool:
    """Stop a thread; return whether it stands, and has not ended."""
    try:
        trace(PTRACE_SEIZE, thread)
    except ProcessLookupError:
        return False
    with contextlib.suppress(ProcessLookupError):
        trace(PTRACE_INTERRUPT, thread)
    _pid, status = os.waitpid(thread, WAIT_FOR_THREADS)
    return os.WIFSTOPPED(status)


def trace(request: int, thread: int) -> None:
    """Ask the kernel for something about a thread."""
    if _ptrace(request, thread, None, None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request:#x}: thread {thread}: {os.strerror(number)}")


def reap(threads: list[int]) -> None:
    """Wait for the end of threads that were stopped; until then their process is not gone."""
    for thread in threads:
        wait_until(functools.partial(has_ended, thread), lambda: "end of threads that hang")


def has_ended(thread: int) -> bool:
    """Reap a thread, if somebody has killed it."""
    pid, status = os.waitpid(thread, WAIT_FOR_THREADS | os.WNOHANG)
    assert pid == 0 or os.WIFSIGNALED(status), f"thread {thread}: {status:#x}"
    return pid != 0
