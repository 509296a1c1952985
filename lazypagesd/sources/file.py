"""A local file as a source: how it may be read without waiting for a disk."""

from __future__ import annotations

import enum
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from lazypagesd.errors import SourceError


class Kind(enum.IntEnum):
    """How a source is read: enum lpd_source_kind of session.h, which a test holds it to."""

    CACHED = 1
    MEMORY = 2
    BLOCKING = 3


# File systems whose files live in memory: /proc/filesystems "nodev" is not enough to tell (FUSE is
# one, too).
MEMORY_FILESYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs"})


@dataclass(frozen=True, slots=True)
class FileSource:
    """A source as the engine takes it.

    *fd* is borrowed: whoever made it keeps it open until the restore has ended.  *name* is what
    people are told, *size* in bytes.
    """

    name: str
    fd: int
    size: int
    kind: Kind

    @classmethod
    def of(cls, fd: int, name: str) -> FileSource:
        """Look at the file behind *fd*, and find out how it may be read."""
        return cls(name, fd, os.fstat(fd).st_size, kind_of(fd, name))


def kind_of(fd: int, name: str) -> Kind:
    """Try a read that must not wait, and see what the file system makes of it."""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return Kind.CACHED
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise SourceError(f"{name}: cannot be read ({error.strerror})") from error
        # Of a directory this is said as well, whoever reads it.
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise SourceError(f"{name}: is a directory") from error
        return Kind.MEMORY if filesystem_of(fd) in MEMORY_FILESYSTEMS else Kind.BLOCKING
    return Kind.CACHED


def filesystem_of(fd: int) -> str:
    """Return the type of the file system that *fd* lives in, or "" if it is not mounted here."""
    if str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("/memfd:"):
        return "tmpfs"
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return ""
