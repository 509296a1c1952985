"""The hand-off for any restore tool: requests in packets, with descriptors beside them.

proto/handoff/handoff.proto says what a client has to know.  Some facts about its transport:

- AF_UNIX with SOCK_SEQPACKET keeps packets apart, and drops what a receiver has no room for; so
  we make room for one byte more than a packet may have.
- An end of file is received as no bytes, and so is an empty packet.  No request is empty.
- Where a receiver has no descriptor number left, those that came last are missing.
"""

from __future__ import annotations

import enum
import os
import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from lazypagesd.closing import Closing
from lazypagesd.engine.pace import Pace
from lazypagesd.engine.pb import record_pb2
from lazypagesd.errors import ImageError
from lazypagesd.handoff.packets import (
    FDS_MAX,
    VERSION,
    Refused,
    decode,
    pace_of,
    reasons_against_pace,
)
from lazypagesd.handoff.vetting import look_at, reason_against_listener, types_needed, vet
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.images.pagemap import PageMap
from lazypagesd.images.regions import NamedRegion, RegionTable
from lazypagesd.kernel import channel, fdpass, pidfd
from lazypagesd.kernel.descriptors import target
from lazypagesd.proto import handoff_pb2 as pb
from lazypagesd.sources.file import FileSource

NAME = re.compile("[ -~]{0,64}")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of it one restore may have."""

    sessions: int = 4096
    regions: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """A restore has begun."""

    name: str
    pace: Pace


@dataclass(frozen=True, slots=True)
class Attached:
    """A restore that another connection has opened is to be reached."""

    id: int


@dataclass(frozen=True, slots=True)
class Session:
    """An address space that is to be served.  The receiver owns *fd* and *pidfd*; *sources* are
    the protocol's.

    *channel* says which messages a channel has to send; None where *fd* is a userfaultfd.
    """

    fd: int
    pidfd: int | None
    index: int  # in its restore, from 0
    page_map: PageMap
    sources: tuple[FileSource, ...]
    channel: channel.Type | None

    def close(self) -> None:
        """Close what the receiver owns, who does not want it."""
        fdpass.close_all(fd for fd in (self.fd, self.pidfd) if fd is not None)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where CRIU is going to connect.  The receiver owns *socket*."""

    socket: socket.socket
    checkpoint: Checkpoint

    def close(self) -> None:
        """Close what the receiver owns, who does not want it."""
        self.socket.close()


class Step(enum.Enum):
    """A request that says all by its kind."""

    MORE = enum.auto()  # a list of regions is not complete yet
    FINISHED = enum.auto()
    PROGRESS = enum.auto()
    RELEASE = enum.auto()
    ABORT = enum.auto()


Outcome = Opened | Attached | Session | Listener | Pace | Step


@dataclass(frozen=True, slots=True)
class _Pending:
    # A session whose list of regions is not complete.
    fd: int
    pidfd: int | None
    table: RegionTable
    sources: tuple[FileSource, ...]
    channel: channel.Type | None

    def session(
        self, index: int, page_map: PageMap, sources: tuple[FileSource, ...] | None = None
    ) -> Session:
        sources = sources or self.sources
        return Session(self.fd, self.pidfd, index, page_map, sources, self.channel)

    @property
    def fds(self) -> list[int]:
        return [self.fd] if self.pidfd is None else [self.fd, self.pidfd]

    def close(self) -> None:
        fdpass.close_all(self.fds)


class Protocol(Closing):
    """The requests of one restore as a state machine: feed it packet after packet.

    Owns what regions are in: the restore must have ended when it is closed.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._files = ExitStack()
        self._images_fd: int | None = None
        self._checkpoint: Checkpoint | None = None
        self._pending: _Pending | None = None
        self._nr_done = 0  # or refused, after which nothing comes
        self._nr_sessions = 0
        self._nr_regions = 0
        self._opened = False  # or attached
        self._over = False  # nothing is handed over any more
        self.number = 0  # of the last request, if it had one

    @classmethod
    def take_over(
        cls, limits: Limits, left: record_pb2.Native, files: Iterable[int], *, over: bool
    ) -> Protocol:
        """Go on where another daemon has noted that it was; a hand-off may be *over*.

        Takes ownership of *files*, and of what *left* names but the listener.
        """
        protocol = cls(limits)
        for fd in files:
            protocol._files.callback(os.close, fd)
        protocol._nr_done = left.nr_done
        protocol._nr_sessions = left.nr_sessions
        protocol._nr_regions = left.nr_regions
        protocol._opened = left.nr_done > 0
        protocol._over = over
        if left.HasField("pending"):
            protocol._pending = _Pending(left.pending, None, RegionTable([]), (), None)
        if left.HasField("images"):
            protocol._files.callback(os.close, left.images)
            # An open that has not been noted comes again, with images of its own.
            protocol._images_fd = left.images if protocol._opened else None
        return protocol

    def note(self, record: record_pb2.Native) -> None:
        """Write into *record* what a daemon that takes over has to know."""
        record.nr_done = self._nr_done
        record.nr_sessions = self._nr_sessions
        record.nr_regions = self._nr_regions
        if self._images_fd is not None:
            record.images = self._images_fd
        record.ClearField("pending")
        if self._pending is not None:
            record.pending = self._pending.fd

    @property
    def images_fd(self) -> int | None:
        """The directory of CRIU's images, if there is one."""
        return self._images_fd

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What is in that directory."""
        return self._checkpoint

    def load_images(self) -> None:
        """Load what is in that directory.  Raises Refused."""
        if self._images_fd is not None:
            self._checkpoint = self._files.enter_context(load(self._images_fd))

    def feed(self, message: fdpass.Message) -> Outcome:
        """Take a packet.  Raises Refused, which is the end of the hand-off.

        Takes what it needs out of *message*, whose rest stays the caller's to close.
        """
        request = decode(message.data)
        kind = request.WhichOneof("kind")
        if len(message.fds) > FDS_MAX:
            raise Refused([f"{len(message.fds)} descriptors: send at most {FDS_MAX}"])
        self._check_order(kind or "")
        if request.number not in (0, self._nr_done + 1):
            raise Refused([f"number {request.number}: {self._nr_done + 1} comes next, or 0"])
        self._nr_done += 1
        self.number = request.number
        match kind:
            case "open":
                return self._open(request.open, message.fds)
            case "add_session":
                return self._add_session(request.add_session, message.fds)
            case "serve_criu":
                return self._serve_criu(message.fds)
        if message.fds:
            raise Refused([f"{kind} comes without descriptors, not with {len(message.fds)}"])
        match kind:
            case "add_regions":
                return self._add_regions(request.add_regions)
            case "set_pace":
                return pace_of(request.set_pace.pace)
            case "attach":
                # Whose hand-off is another connection's.
                self._opened = self._over = True
                return Attached(request.attach.id)
        self._over |= kind == "finished"
        return Step[(kind or "").upper()]

    @property
    def fds(self) -> list[int]:
        """What it owns, but the files of sessions that are complete."""
        pending = self._pending
        owned = [self._images_fd, *(pending.fds if pending else ())]
        return [fd for fd in owned if fd is not None]

    @property
    def pending_fd(self) -> int | None:
        """The descriptor of a session whose list of regions is not complete yet."""
        return None if self._pending is None else self._pending.fd

    def close(self) -> None:
        """Close all that it owns."""
        if self._pending is not None:
            self._pending.close()
            self._pending = None
        self._files.close()

    def _check_order(self, kind: str) -> None:
        if self._opened == (kind in ("open", "attach")):
            raise Refused([f"{kind}: begin with open or attach, and do so once"])
        if (kind == "add_regions") and self._pending is None:
            raise Refused(["add_regions: no session's list goes on: say `more` in what is before"])
        if kind in ("add_session", "finished", "serve_criu") and self._pending is not None:
            raise Refused([f"{kind}: the list of the last session is not complete yet"])
        if kind == "release" and not self._over:
            raise Refused(["release: before finished there is no end to wait for"])
        if kind in ("add_session", "finished", "serve_criu", "abort") and self._over:
            raise Refused([f"{kind}: too late, the hand-off is over"])

    # ---- each request ----

    def _open(self, request: pb.Open, fds: list[int]) -> Opened:
        reasons = []
        if request.version != VERSION:
            reasons.append(f"version {request.version}: this daemon speaks version {VERSION}")
        if not NAME.fullmatch(request.name):
            reasons.append("name: let it have at most 64 printable ASCII characters")
        if len(fds) != request.images:
            wanted = "one descriptor, of a directory" if request.images else "no descriptor"
            reasons.append(f"images: {request.images} comes with {wanted}, not {len(fds)}")
        reasons += reasons_against_pace(request.pace)
        if reasons:
            raise Refused(reasons)
        if request.images:
            self._images_fd = fds.pop()
            self._files.callback(os.close, self._images_fd)
            self.load_images()
        self._opened = True
        return Opened(request.name, pace_of(request.pace))

    def _add_session(self, request: pb.AddSession, fds: list[int]) -> Session | Step:
        reasons = []
        if self._nr_sessions >= self._limits.sessions:
            reasons.append(f"a restore has at most {self._limits.sessions} sessions here")
        if len(fds) <= request.pidfd:
            raise Refused([*reasons, f"only {len(fds)} descriptors came: some are missing"])
        reasons += vet(fds[0], request)
        if request.pidfd and not pidfd.is_pidfd(fds[1]):
            reasons.append(f"descriptor 1 is no pidfd ({target(fds[1])})")
        first_source = 1 + request.pidfd
        sources, refused = look_at(fds[first_source:])
        reasons += refused
        if request.HasField("image_pid"):
            reasons += self._reasons_against_image(request, len(sources))
        table = RegionTable([source.size for source in sources])
        if not refused:
            reasons += self._reasons_against_regions(request.regions, table)
        if reasons:
            raise Refused(reasons)
        self._nr_sessions += 1
        types = types_needed(request) if request.channel else None
        pending = _Pending(fds[0], fds[1] if request.pidfd else None, table, sources, types)
        for source in sources:
            self._files.callback(os.close, source.fd)
        fds.clear()
        self._pending = pending
        if request.HasField("image_pid"):
            return self._image_session(pending, request.image_pid)
        return self._continue(pending, more=request.more)

    def _add_regions(self, request: pb.AddRegions) -> Session | Step:
        assert self._pending is not None, "checked with the order"
        if reasons := self._reasons_against_regions(request.regions, self._pending.table):
            raise Refused(reasons)
        return self._continue(self._pending, more=request.more)

    def _continue(self, pending: _Pending, *, more: bool) -> Session | Step:
        if more:
            return Step.MORE
        self._pending = None
        return pending.session(self._nr_sessions - 1, pending.table.page_map())

    def _serve_criu(self, fds: list[int]) -> Listener:
        if self._checkpoint is None or self._nr_sessions:
            raise Refused(["serve_criu: open with images, and add no session"])
        if len(fds) != 1:
            raise Refused([f"serve_criu: {len(fds)} descriptors came: send one, which listens"])
        if reason := reason_against_listener(fds[0]):
            raise Refused([f"serve_criu: {reason}"])
        self._over = True
        return Listener(socket.socket(fileno=fds.pop()), self._checkpoint)

    # ---- what may be wrong with a session ----

    def _reasons_against_image(self, request: pb.AddSession, nr_sources: int) -> list[str]:
        reasons = []
        if request.regions or request.more or nr_sources:
            reasons.append("image_pid: comes instead of regions and files, not with them")
        if self._checkpoint is None:
            reasons.append("image_pid: no images came with open")
        elif request.image_pid not in self._checkpoint.page_maps:
            reasons.append(f"image_pid: {request.image_pid} is no live process of the images")
        return reasons

    def _reasons_against_regions(
        self, regions: Sequence[pb.Region], table: RegionTable
    ) -> list[str]:
        self._nr_regions += len(regions)
        if self._nr_regions > self._limits.regions:
            return [f"a restore has at most {self._limits.regions} regions here"]
        return [
            f"region {raw.start:#x}: {reason}"
            for raw in regions
            for reason in table.add(NamedRegion(raw.start, raw.nr_pages, raw.offset, raw.source))
        ]

    def _image_session(self, pending: _Pending, pid: int) -> Session:
        assert self._checkpoint is not None, "checked with the reasons"
        page_map = self._checkpoint.page_map(pid)
        sources = tuple(FileSource.of(file.fd, file.name) for file in page_map.sources)
        self._pending = None
        return pending.session(self._nr_sessions - 1, page_map, sources)


def load(directory_fd: int) -> Checkpoint:
    """Load the images in a directory, which a client has opened; Refused says what is wrong."""
    try:
        return Checkpoint.open(directory_fd)
    except ImageError as error:
        raise Refused([f"images: {error}"]) from error
    except OSError as error:
        raise Refused([f"images: {error.filename or 'directory'}: {error.strerror}"]) from error
