"""SIGHUP: the limits of the configuration, read again."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from lazypagesd.errors import ConfigError
from lazypagesd.service.admission import Admission
from lazypagesd.service.options import ServeConfig

log = logging.getLogger(__name__)


def at_signal(read: Callable[[], ServeConfig], admission: Admission) -> None:
    """Do so whenever the signal comes, in the running loop."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload, read, admission)


def reload(read: Callable[[], ServeConfig], admission: Admission) -> None:
    """Put the limits that *read* returns in force for what comes; if it cannot, log why."""
    try:
        config = read()
    except (ConfigError, OSError) as error:
        log.error("not reloaded, the limits are as before: %s", error)
    else:
        admission.limits = config.limits
        log.info("reloaded: %s", config.limits)
