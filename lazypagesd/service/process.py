"""What a daemon settles of its own process before it serves."""

from __future__ import annotations

import gc
import resource
import signal
import sys

HANDLED = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2}


def stop_interrupting() -> None:
    """Let SIGINT end us as SIGTERM does, until there is something to lose: without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def hold_signals() -> None:
    """Let the signals that a daemon acts on wait until release_signals(), in threads that are
    started meanwhile for ever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


def release_signals() -> None:
    """Take those that have come, and will come, in this thread."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def raise_descriptor_limit() -> None:
    """Take what the hard limit allows: each process that forks brings two more descriptors."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def import_without_collecting() -> None:
    """Look for no garbage, from now on: what is imported stays, and going through it takes a fifth
    of the time until we are ready, and once more at the end."""
    gc.disable()


def leave_out_tls() -> None:
    """Let asyncio, which is imported afterwards, do without ssl, which is a quarter of what a
    drop-in imports beside a process that runs by then; it speaks no TLS."""
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type] # "cannot be imported"


def collect_from_now_on() -> None:
    """Look for garbage among what is made from now on, but not among what is there."""
    gc.freeze()
    gc.enable()
