"""SIGHUP: the limits of the configuration, read again."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from lazypagesd.errors import ConfigError
from lazypagesd.service.options import ServeConfig, ServeLimits

log = logging.getLogger(__name__)


def at_signal(read: Callable[[], ServeConfig], enforce: Callable[[ServeLimits], None]) -> None:
    """Do so whenever the signal comes, in the running loop."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload, read, enforce)


def reload(read: Callable[[], ServeConfig], enforce: Callable[[ServeLimits], None]) -> None:
    """Let *enforce* put the limits that *read* returns in force; if it cannot read them, log
    why."""
    try:
        config = read()
    except (ConfigError, OSError) as error:
        log.error("not reloaded, the limits are as before: %s", error)
    else:
        enforce(config.limits)
        log.info("reloaded: %s", config.limits)
