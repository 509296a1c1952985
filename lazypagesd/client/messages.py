"""What is said to the daemon, and what its answers mean: no socket here, and nothing that waits.

restore.py and aio.py send these packets, one after the other's answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

from google.protobuf.message import DecodeError

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


@dataclass(frozen=True, slots=True)
class Packet:
    """A request, and the descriptors that go beside it."""

    request: pb.Request
    fds: Sequence[int] = ()


FINISHED = Packet(pb.Request(finished=pb.Finished()))
PROGRESS = Packet(pb.Request(progress=pb.Progress()))
RELEASE = Packet(pb.Request(release=pb.Release()))
ABORT = Packet(pb.Request(abort=pb.Abort()))


def opening(name: str, images_fd: int | None, pace: Pace) -> Packet:
    """Return what begins a restore."""
    request = pb.Open(version=VERSION, name=name, images=images_fd is not None, pace=_pace(pace))
    return Packet(pb.Request(open=request), [] if images_fd is None else [images_fd])


def attaching(number: int) -> Packet:
    """Return what begins a visit."""
    return Packet(pb.Request(attach=pb.Attach(id=number)))


def session(
    userfaultfd: int,
    regions: Iterable[Region],
    files: Sequence[int],
    *,
    image_pid: int | None,
    pidfd: int | None,
    never_forks: bool,
    never_changes_mappings: bool,
    channel: bool,
) -> Iterator[Packet]:
    """Yield what hands one address space over: its list of regions may need many packets."""
    rest = iter(regions)
    piece, following = _take(rest), _take(rest)
    request = pb.AddSession(
        regions=piece,
        more=bool(following),
        image_pid=image_pid,
        pidfd=pidfd is not None,
        never_forks=never_forks,
        never_changes_mappings=never_changes_mappings,
        channel=channel,
    )
    fds = [userfaultfd, *([] if pidfd is None else [pidfd]), *files]
    yield Packet(pb.Request(add_session=request), fds)
    while following:
        piece, following = following, _take(rest)
        yield Packet(pb.Request(add_regions=pb.AddRegions(regions=piece, more=bool(following))))


def pacing(pace: Pace) -> Packet:
    """Return what sets another pace."""
    return Packet(pb.Request(set_pace=pb.SetPace(pace=_pace(pace))))


def listener(fd: int) -> Packet:
    """Return what lets CRIU connect to *fd*."""
    return Packet(pb.Request(serve_criu=pb.ServeCriu()), [fd])


class Conversation:
    """The requests of one connection, to a restore that is called *name*, and their answers.

    Each request has a number, by which a daemon that takes over from another one knows which it
    has to answer.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nr_sent = 0

    def encode(self, packet: Packet) -> bytes:
        """Return what is to be sent next."""
        self._nr_sent += 1
        request = pb.Request(number=self._nr_sent)
        request.MergeFrom(packet.request)
        return request.SerializeToString()

    def take(self, data: bytes) -> pb.Answer | None:
        """Return the answer that a packet is; None if it is one that has come once before.

        Raises Refused if it is that, and ConnectionError if it is none: the daemon has hung up,
        which is received as an empty packet, or is no daemon of ours.
        """
        if not data:
            raise ConnectionError(f"{self.name}: the daemon hung up; its log says why")
        try:
            answer = pb.Answer.FromString(data)
        except DecodeError:
            what = data[:16].hex()
            raise ConnectionError(f"{self.name}: the answer is no Answer ({what})") from None
        if not answer.accepted:
            raise Refused(answer.refused)
        return answer if answer.number in (0, self._nr_sent) else None


def progress_of(answer: pb.Answer) -> Progress:
    """Return the state in an answer."""
    state = answer.state
    return Progress(
        ended=state.ended,
        nr_sessions=state.nr_sessions,
        nr_live=state.nr_live,
        nr_pages=state.nr_pages,
        nr_missing=state.nr_missing,
    )


def _pace(pace: Pace) -> pb.Pace:
    if pace in (Pace.EAGER, Pace.LAZY):
        return pb.Pace(kind=pb.Pace.EAGER if pace == Pace.EAGER else pb.Pace.LAZY)
    return pb.Pace(kind=pb.Pace.PACED, rate=pace.rate)


def _take(regions: Iterable[Region]) -> list[pb.Region]:
    return [
        pb.Region(start=r.start, nr_pages=r.nr_pages, offset=r.offset, source=r.source)
        for r in islice(regions, REGIONS_MAX)
    ]
