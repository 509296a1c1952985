"""What a daemon was asked to do, free of how it was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lazypagesd.engine.pace import EAGER, Pace

if TYPE_CHECKING:
    from lazypagesd.service.metrics.address import Address

ERRORS_ONLY = 1
WARNINGS = 2
INFORMATION = 3
EVERYTHING = 4


@dataclass(frozen=True, slots=True)
class DropinOptions:
    """The options of ``lazypagesd lazy-pages`` that mean something to it.

    *log_file*, *pidfile* and *action_scripts* are relative to *work_dir*, which is in turn
    relative to where we were started, as *images_dir* is.  *verbosity* counts as criu does: 1
    errors, 2 warnings, 3 information, 4 all.  *pace* is that of each restore; *keeper*
    whether another daemon is to go on if this one dies.  *warnings* are what the options gave
    reason to say; open_log() says it.
    """

    images_dir: Path = Path()
    work_dir: Path = Path()
    log_file: str | None = None
    verbosity: int = WARNINGS
    daemon: bool = False
    pidfile: str | None = None
    status_fd: int | None = None
    action_scripts: tuple[str, ...] = ()
    pace: Pace = EAGER
    keeper: bool = True
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """The limits of ``lazypagesd serve``.

    *sessions* and *regions* are those of one restore; *memory_per_user* is in MiB; *criu_wait_s*
    is how long a restore by CRIU may take to connect; *poll_us* for how long a worker asks for
    messages before it sleeps.
    """

    restores: int = 1024
    connections_per_user: int = 1024
    memory_per_user: int = 1024
    sessions: int = 4096
    regions: int = 1 << 20
    criu_wait_s: int = 600
    poll_us: int = 800  # as in engine/worker.py, which takes long to import


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """The configuration of ``lazypagesd serve``.

    Members of *group*, by default the daemon's own, reach every restore; *metrics* is where they
    are told by HTTP.
    """

    group: str | None = None
    limits: ServeLimits = ServeLimits()
    metrics: Address | None = None


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of ``lazypagesd serve``; *reread* returns the configuration as it is now."""

    runtime_dir: Path
    verbosity: int = WARNINGS
    config: ServeConfig = ServeConfig()
    keeper: bool = True
    reread: Callable[[], ServeConfig] = ServeConfig
