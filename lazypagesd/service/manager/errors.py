"""The errors of the interface."""

from __future__ import annotations

from lazypagesd.service.varlink.errors import CallError

INTERFACE = "org.lazypages.Manager"


def no_such_restore(number: object) -> CallError:
    """None is served, or none that the caller may know of."""
    return CallError(f"{INTERFACE}.NoSuchRestore", restore=number)


def no_such_session(id: object) -> CallError:
    """The same of a session."""
    return CallError(f"{INTERFACE}.NoSuchSession", session=id)


def no_such_process(pid: object) -> CallError:
    """No session is known to be of this process."""
    return CallError(f"{INTERFACE}.NoSuchProcess", pid=pid)


def not_released(number: int) -> CallError:
    """The restore tool has not finished."""
    return CallError(f"{INTERFACE}.NotReleased", restore=number)


def pages_missing(id: str, nr_missing: int) -> CallError:
    """They would be lost."""
    return CallError(f"{INTERFACE}.PagesMissing", session=id, nr_missing=nr_missing)
