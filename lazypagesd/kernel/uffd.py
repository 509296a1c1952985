"""What a userfaultfd descriptor is, read from the descriptor itself.

Some facts: ``/proc/self/fdinfo/N`` says ``API: aa:FEATURES:IOCTLS``, all hexadecimal. FEATURES is
0 before UFFDIO_API and has the kernel's own bit 31 after it (Linux 5.15);
include/uapi/linux/userfaultfd.h has the others. A descriptor with UFFD_FEATURE_SIGBUS sends no
messages at all, and a blocking one cannot be polled, so neither can be served.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from lazypagesd.kernel.descriptors import target

UFFD_API = 0xAA
UFFDIO_WRITEPROTECT = 0xC018AA06  # _IOWR(0xAA, 6, struct uffdio_writeprotect), of 3 u64
# As in native/uffd.c: lifting a protection that is not there changes nothing.
PROBE = struct.pack("=3Q", 0x10000, 0x1000, 0)

# Not in Python 3.11's fcntl module; include/uapi/linux/fcntl.h.
F_DUPFD_QUERY = 1027


class Feature(enum.IntFlag):
    """UFFD_FEATURE_..., as negotiated by UFFDIO_API."""

    PAGEFAULT_FLAG_WP = 1 << 0
    EVENT_FORK = 1 << 1
    EVENT_REMAP = 1 << 2
    EVENT_REMOVE = 1 << 3
    MISSING_HUGETLBFS = 1 << 4
    MISSING_SHMEM = 1 << 5
    EVENT_UNMAP = 1 << 6
    SIGBUS = 1 << 7
    THREAD_ID = 1 << 8
    MINOR_HUGETLBFS = 1 << 9
    MINOR_SHMEM = 1 << 10
    EXACT_ADDRESS = 1 << 11
    WP_HUGETLBFS_SHMEM = 1 << 12
    WP_UNPOPULATED = 1 << 13
    POISON = 1 << 14
    WP_ASYNC = 1 << 15
    MOVE = 1 << 16


ALL_FEATURES = sum(Feature)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A userfaultfd as the kernel describes it."""

    negotiated: bool
    features: Feature
    blocking: bool


def describe(fd: int) -> Descriptor | None:
    """Describe *fd*, or return None if it is no userfaultfd."""
    if target(fd) != "anon_inode:[userfaultfd]":
        return None
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("API:"):
            api, features, _ioctls = line.removeprefix("API:").split(":")
            break
    else:
        raise OSError(
            errno.EPROTO, "fdinfo of a userfaultfd has no API line", f"/proc/self/fdinfo/{fd}"
        )
    bits = int(features, 16)
    return Descriptor(
        negotiated=int(api, 16) == UFFD_API and bits != 0,
        features=Feature(bits & ALL_FEATURES),
        blocking=os.get_blocking(fd),
    )


def nr_pending(fd: int) -> int:
    """Return how many faults at *fd*, a userfaultfd, nobody has read yet.

    ``total:``, beside it, has those that were read and not answered as well.
    """
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("pending:"):
            return int(line.removeprefix("pending:"))
    return 0


def identity(fd: int) -> tuple[int, int]:
    """Return what two descriptors of one userfaultfd, or of one socket, have in common: the inode.

    Other userfaultfds have another (tried on 6.18); where they did not, it would but take longer
    to tell them apart.
    """
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def is_same(fd: int, other_fd: int) -> bool:
    """Whether two descriptors are one userfaultfd; False where the kernel (before 6.10) cannot
    say."""
    try:
        return fcntl.fcntl(fd, F_DUPFD_QUERY, other_fd) == 1
    except OSError:
        return False


def is_gone(fd: int) -> bool:
    """Whether the address space behind *fd*, which no session serves, is no more."""
    try:
        fcntl.ioctl(fd, UFFDIO_WRITEPROTECT, PROBE)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False
