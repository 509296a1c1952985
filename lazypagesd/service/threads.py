"""Work that may wait: for a disk, or for whoever serves a file, and that may be a client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_thread(function: Callable[..., T], *args: object) -> asyncio.Future[T]:
    """Call a function in a thread of its own; return what is awaited for what it returns.

    asyncio.to_thread() has a few threads for everybody: with so many files whose server does not
    answer nobody would be served any more.
    """
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    # So that it stays open for what comes, should whoever awaits it give up.
    future.set_running_or_notify_cancel()
    threading.Thread(target=call, daemon=True).start()
    return asyncio.wrap_future(future)
