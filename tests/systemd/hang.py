"""Stopping single threads of another process, which no signal does: a debugger's way."""

from __future__ import annotations

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
    """Stop every thread of process *pid* but its first; return them."""
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    threads.remove(pid)
    for thread in threads:
        for request in PTRACE_SEIZE, PTRACE_INTERRUPT:
            if _ptrace(request, thread, None, None) < 0:
                raise OSError(ctypes.get_errno(), f"ptrace {request:#x}: thread {thread}")
        # When this returns, it stands.
        os.waitpid(thread, WAIT_FOR_THREADS)
    return threads


def reap(threads: list[int]) -> None:
    """Wait for the end of threads that were stopped; until then their process is not gone."""
    for thread in threads:
        wait_until(functools.partial(has_ended, thread), lambda: "end of threads that hang")


def has_ended(thread: int) -> bool:
    """Reap a thread, if somebody has killed it."""
    pid, status = os.waitpid(thread, WAIT_FOR_THREADS | os.WNOHANG)
    assert pid == 0 or os.WIFSIGNALED(status), f"thread {thread}: {status:#x}"
    return pid != 0
