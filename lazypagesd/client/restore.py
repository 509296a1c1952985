"""One restore as an object: each method is a request, and waits for its answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from lazypagesd.proto import handoff_pb2 as pb

VERSION = 1
SOCKET_PATH = Path("/run/lazypagesd/handoff.socket")
PACKET_MAX = 1 << 16
# In one packet, of at most 40 bytes each.
REGIONS_MAX = 1500


class Refused(Exception):
    """The daemon has refused a request, and the restore with it; *reasons* say why."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast what nobody waits for is filled: *rate* bytes a second for each address space.

    Pace.EAGER is as fast as it goes, Pace.LAZY never.
    """

    rate: int

    EAGER: ClassVar[Pace]
    LAZY: ClassVar[Pace]


Pace.EAGER, Pace.LAZY = Pace(-1), Pace(0)


@dataclass(frozen=True, slots=True)
class Region:
    """*nr_pages* pages of 4096 bytes at *start* are in file number *source* at *offset*."""

    start: int
    nr_pages: int
    offset: int
    source: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a restore is: see State in proto/handoff/handoff.proto."""

    ended: bool
    nr_sessions: int
    nr_live: int
    nr_pages: int
    nr_missing: int


class Restore:
    """A connection to the daemon, and the restore that it stands for.

    Every method raises Refused with the daemon's reasons, and OSError where it cannot be reached
    any more.  Before `finished` either fails the restore: kill its processes.  Descriptors stay
    the caller's, who may close them when the method has returned.
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        """Use `open` or `attach` instead."""
        self._socket = sock
        self.name = name
        self.id = 0

    @classmethod
    def open(
        cls,
        name: str = "",
        path: Path = SOCKET_PATH,
        *,
        images_fd: int | None = None,
        pace: Pace = Pace.EAGER,
    ) -> Self:
        """Begin a restore that people are told of as *name*.

        *images_fd* is a directory of CRIU's images, for add_session() with *image_pid* and for
        serve_criu().
        """
        request = pb.Open(
            version=VERSION, name=name, images=images_fd is not None, pace=_pace(pace)
        )
        fds = [] if images_fd is None else [images_fd]
        return cls._connect(path, name, pb.Request(open=request), fds)

    @classmethod
    def attach(cls, number: int, path: Path = SOCKET_PATH) -> Self:
        """Reach the restore whose `id` is *number*, for progress(), set_pace() and release()."""
        request = pb.Request(attach=pb.Attach(id=number))
        return cls._connect(path, f"restore {number}", request, [])

    @classmethod
    def _connect(cls, path: Path, name: str, request: pb.Request, fds: Sequence[int]) -> Self:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        restore = cls(sock, name)
        try:
            try:
                sock.connect(os.fspath(path))
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.fspath(path)) from error
            answer = restore._ask(request, fds)
        except BaseException:
            sock.close()
            raise
        restore.name, restore.id = answer.restore, answer.id
        return restore

    def add_session(
        self,
        userfaultfd: int,
        *,
        regions: Iterable[Region] = (),
        files: Sequence[int] = (),
        image_pid: int | None = None,
        pidfd: int | None = None,
        never_forks: bool = False,
        never_changes_mappings: bool = False,
    ) -> None:
        """Hand one address space over; its faults are answered when this returns.

        Its bytes are in *files* as *regions* say, which ascend by their addresses, or those of
        process *image_pid* in the images; the rest is zero.  A process that *never_forks* or
        *never_changes_mappings* needs a userfaultfd without the events that would tell.
        """
        rest = iter(regions)
        request = pb.AddSession(
            image_pid=image_pid,
            pidfd=pidfd is not None,
            never_forks=never_forks,
            never_changes_mappings=never_changes_mappings,
        )
        piece, following = _take(rest), _take(rest)
        request.regions.extend(piece)
        request.more = bool(following)
        fds = [userfaultfd, *([] if pidfd is None else [pidfd]), *files]
        self._ask(pb.Request(add_session=request), fds)
        while following:
            piece, following = following, _take(rest)
            more = pb.AddRegions(regions=piece, more=bool(following))
            self._ask(pb.Request(add_regions=more))

    def finished(self) -> None:
        """Say that all processes are in place: what is missing is filled from now on."""
        self._ask(pb.Request(finished=pb.Finished()))

    def set_pace(self, pace: Pace) -> None:
        """Fill what nobody waits for at another pace from now on."""
        self._ask(pb.Request(set_pace=pb.SetPace(pace=_pace(pace))))

    def progress(self) -> Progress:
        """Return how far it is."""
        return _progress(self._ask(pb.Request(progress=pb.Progress())))

    def release(self) -> Progress:
        """Wait until the processes need the daemon no more."""
        return _progress(self._ask(pb.Request(release=pb.Release())))

    def abort(self) -> None:
        """Give the restore up, before `finished`: kill its processes now."""
        self._ask(pb.Request(abort=pb.Abort()))

    def serve_criu(self, listener_fd: int) -> None:
        """Let ``criu restore --lazy-pages`` connect to a socket that listens; it may begin when
        this returns."""
        self._ask(pb.Request(serve_criu=pb.ServeCriu()), [listener_fd])

    def close(self) -> None:
        """Leave.  A restore that has not finished fails."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave."""
        self.close()

    def _ask(self, request: pb.Request, fds: Sequence[int] = ()) -> pb.Answer:
        socket.send_fds(self._socket, [request.SerializeToString()], fds)
        try:
            data = self._socket.recv(PACKET_MAX)
        except ConnectionResetError:  # it has left without reading the request
            data = b""
        if not data:
            raise ConnectionError(f"{self.name}: the daemon hung up; its log says why")
        answer = pb.Answer.FromString(data)
        if not answer.accepted:
            raise Refused(answer.refused)
        return answer


def _pace(pace: Pace) -> pb.Pace:
    if pace in (Pace.EAGER, Pace.LAZY):
        return pb.Pace(kind=pb.Pace.EAGER if pace == Pace.EAGER else pb.Pace.LAZY)
    return pb.Pace(kind=pb.Pace.PACED, rate=pace.rate)


def _take(regions: Iterable[Region]) -> list[pb.Region]:
    return [
        pb.Region(start=r.start, nr_pages=r.nr_pages, offset=r.offset, source=r.source)
        for r in islice(regions, REGIONS_MAX)
    ]


def _progress(answer: pb.Answer) -> Progress:
    state = answer.state
    return Progress(
        ended=state.ended,
        nr_sessions=state.nr_sessions,
        nr_live=state.nr_live,
        nr_pages=state.nr_pages,
        nr_missing=state.nr_missing,
    )
