"""Every exception that lazypagesd raises of its own: one class a layer.

A message reads ``subject: what was wrong (value)``, followed by the remedy where there is one.
What the kernel refuses stays an OSError, with its errno and its file name.
"""

from __future__ import annotations


class LazyPagesError(Exception):
    """The base of all others; never raised itself."""


class ImageError(LazyPagesError):
    """An image directory that cannot be served, exactly as it is.

    *file* is the name of the image file within its directory (a parent's prefixed with
    ``parent/``), *offset* the byte in it at which the trouble lies, where there is one.
    """

    def __init__(self, file: str, what: str, *, offset: int | None = None) -> None:
        place = file if offset is None else f"{file} at offset {offset}"
        super().__init__(f"{place}: {what}")
        self.file = file
        self.what = what
        self.offset = offset


class SourceError(LazyPagesError):
    """A source whose bytes cannot be read."""


class HandoffError(LazyPagesError):
    """A hand-off that breaks its protocol, or a descriptor that cannot be served."""


class SessionError(LazyPagesError):
    """A session that cannot be served any further."""


class ForeignStateError(LazyPagesError):
    """What another version of the daemon has left, and this one cannot read."""


class ConfigError(LazyPagesError, ValueError):
    """A command line or configuration file that asks for what cannot be."""
