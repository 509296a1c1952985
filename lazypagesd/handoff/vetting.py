"""Whether what came with a hand-off can be served exactly, read from the descriptors."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence

from lazypagesd.errors import SourceError
from lazypagesd.kernel import channel, uffd
from lazypagesd.kernel.descriptors import is_socket, target
from lazypagesd.proto import handoff_pb2 as pb
from lazypagesd.sources.file import FileSource

MAPPING_EVENTS = uffd.Feature.EVENT_REMAP | uffd.Feature.EVENT_REMOVE | uffd.Feature.EVENT_UNMAP
ALL_EVENTS = uffd.Feature.EVENT_FORK | MAPPING_EVENTS


def reasons_against(
    found: uffd.Descriptor, required: uffd.Feature = ALL_EVENTS, *, remedy: str
) -> list[str]:
    """Return every reason why what was *found* cannot be served; none if it can.

    *required* are the events that it must tell of, *remedy* what to do where it lacks one.
    """
    reasons = []
    if found.blocking:
        reasons.append("it is blocking: open it with O_NONBLOCK")
    if not found.negotiated:
        reasons.append("its API is not negotiated: do UFFDIO_API first")
    elif missing := required & ~found.features:
        reasons.append(f"it lacks {missing.name}: {remedy}")
    if uffd.Feature.SIGBUS in found.features:
        reasons.append("it has UFFD_FEATURE_SIGBUS, and so sends no messages: do without")
    return reasons


def look_at(fds: Sequence[int]) -> tuple[tuple[FileSource, ...], list[str]]:
    """Return *fds* as sources, and every reason why one cannot be."""
    sources, reasons = [], []
    for i, fd in enumerate(fds):
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SourceError(f"is no regular file ({target(fd)})")
            sources.append(FileSource.of(fd, target(fd)))
        except SourceError as error:
            reasons.append(f"file {i}: {error}")
        except OSError as error:
            reasons.append(f"file {i}: cannot be looked at ({target(fd)}: {error.strerror})")
    return tuple(sources), reasons


def reason_against_listener(fd: int) -> str | None:
    """Return why CRIU cannot connect to *fd*."""
    if not is_socket(fd):
        return f"no socket ({target(fd)})"
    with socket.socket(fileno=os.dup(fd)) as sock:
        if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
            return "the socket is not of AF_UNIX and SOCK_STREAM"
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "the socket does not listen: call listen() first"
    return None


def types_needed(request: pb.AddSession) -> channel.Type:
    """Return which messages a channel has to send for what *request* says of its process."""
    types = channel.Type.PAGEFAULT
    if not request.never_forks:
        types |= channel.Type.FORK
    if not request.never_changes_mappings:
        types |= channel.MAPPING_TYPES
    return types


def vet(fd: int, request: pb.AddSession) -> list[str]:
    """Return every reason why the descriptor *fd* cannot be served as *request* wants it."""
    if request.channel:
        reason = channel.reason_against(fd)
        return [f"descriptor 0 is no channel: {reason} ({target(fd)})"] if reason else []
    found = uffd.describe(fd)
    if found is None:
        return [f"descriptor 0 is no userfaultfd ({target(fd)})"]
    required = ALL_EVENTS
    if request.never_forks:
        required &= ~uffd.Feature.EVENT_FORK
    if request.never_changes_mappings:
        required &= ~MAPPING_EVENTS
    remedy = "ask for it in UFFDIO_API, or say never_forks or never_changes_mappings if so"
    reasons = reasons_against(found, required, remedy=remedy)
    return [f"the userfaultfd cannot be served: {reason}" for reason in reasons]
