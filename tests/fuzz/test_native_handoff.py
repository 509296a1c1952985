"""Packets of a native hand-off, changed in any way, with any descriptors beside them."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazypagesd.engine.pace import EAGER, LAZY, Pace
from lazypagesd.handoff.native import (
    Attached,
    Limits,
    Listener,
    Opened,
    Protocol,
    Session,
    Step,
)
from lazypagesd.handoff.packets import FDS_MAX, REASONS_MAX, Refused
from lazypagesd.images.pagemap import PageMap
from lazypagesd.kernel import uffd
from lazypagesd.kernel.fdpass import Message
from lazypagesd.proto import handoff_pb2 as pb
from tests.fuzz import test_handoff
from tests.handoff.test_criu import nr_fds
from tests.service.restorer import write_checkpoint
from tests.service.serving import ABORT, FINISHED, PROGRESS, RELEASE, opening, session

pytestmark = pytest.mark.uffd

START, PAGE = 0x100000000000, 4096
FILE_PAGES = 8
LIMITS = Limits(sessions=3, regions=6)
SERVE_CRIU = pb.Request(serve_criu=pb.ServeCriu())


@dataclass(frozen=True, slots=True)
class Packet:
    """One sendmsg(): bytes, and the names of descriptors that go with them."""

    data: bytes
    fds: tuple[str, ...] = ()


@functools.cache
def descriptors() -> dict[str, int]:
    """Return descriptors by name, good ones and others; they stay open."""
    opened = dict(test_handoff.descriptors())
    opened["memfd"] = os.memfd_create("fuzz")
    os.ftruncate(opened["memfd"], FILE_PAGES * PAGE)
    opened["pidfd"] = os.pidfd_open(os.getpid())
    for name, listens in (("listener", True), ("silent", False)):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind("")
        if listens:
            sock.listen()
        opened[name] = sock.detach()
    with tempfile.TemporaryDirectory() as directory:
        opened |= from_a_file_system(Path(directory))
    return opened


def from_a_file_system(directory: Path) -> dict[str, int]:
    """Return descriptors that have, or had, a path."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(directory / "socket"))
    (directory / "file").write_bytes(bytes(FILE_PAGES * PAGE))
    return {
        "path of a socket": os.open(directory / "socket", os.O_PATH),
        "path of a file": os.open(directory / "file", os.O_PATH),
        "write only": os.open(directory / "file", os.O_WRONLY),
        "empty directory": os.open(directory, os.O_RDONLY),
    }


NAMES = (
    *("good", "memfd", "pidfd", "listener", "images"),
    *("blocking", "plain", "sigbus", "lacking", "file", "pipe", "silent"),
    *("path of a socket", "path of a file", "write only", "empty directory"),
)


def packet(request: pb.Request, *fds: str) -> Packet:
    """Return a request as it is sent."""
    return Packet(request.SerializeToString(), fds)


def region(page: int, nr_pages: int, offset_pages: int = 0, source: int = 0) -> pb.Region:
    """Return a region, counted in pages."""
    return pb.Region(
        start=START + page * PAGE, nr_pages=nr_pages, offset=offset_pages * PAGE, source=source
    )


def more_regions(*regions: pb.Region, more: bool = False) -> pb.Request:
    """Return an add_regions."""
    return pb.Request(add_regions=pb.AddRegions(regions=regions, more=more))


def set_pace(pace: pb.Pace) -> pb.Request:
    """Return a set_pace."""
    return pb.Request(set_pace=pb.SetPace(pace=pace))


# Hand-offs that are right, of which each kind of request is in one.
RIGHT = (
    [
        packet(opening(name="web")),
        packet(session([region(0, 2)], more=True, pidfd=True), "good", "pidfd", "memfd", "memfd"),
        packet(more_regions(region(2, 1, 4, 1), more=True)),
        packet(more_regions(region(9, 3, 5))),
        packet(session(), "good"),
        packet(set_pace(pb.Pace(kind=pb.Pace.PACED, rate=1 << 20))),
        packet(PROGRESS),
        packet(FINISHED),
        packet(RELEASE),
    ],
    [
        packet(opening(images=True), "images"),
        packet(session(image_pid=7), "good"),
        packet(session([region(0, 8)], never_changes_mappings=True), "lacking", "memfd"),
        packet(FINISHED),
    ],
    [packet(opening(images=True), "images"), packet(SERVE_CRIU, "listener"), packet(RELEASE)],
    [packet(opening()), packet(session(), "good"), packet(ABORT)],
    [packet(pb.Request(attach=pb.Attach(id=3))), packet(PROGRESS), packet(RELEASE)],
)
PACKETS = [packet for script in RIGHT for packet in script]

NUMBERS = st.one_of(st.integers(0, 12), st.integers(0, 2**64 - 1))
REGIONS = st.builds(
    pb.Region,
    start=st.one_of(st.integers(0, 16).map(lambda page: START + page * PAGE), NUMBERS),
    nr_pages=NUMBERS,
    offset=st.one_of(st.integers(0, 8).map(lambda page: page * PAGE), NUMBERS),
    source=st.integers(0, 3),
)
PACES = st.builds(pb.Pace, kind=st.integers(-1, 4), rate=NUMBERS)
LISTS = st.lists(REGIONS, max_size=4)
REQUESTS = st.one_of(
    st.builds(lambda regions, more: more_regions(*regions, more=more), LISTS, st.booleans()),
    st.builds(
        lambda regions, **flags: session(regions, **flags),
        LISTS,
        more=st.booleans(),
        pidfd=st.booleans(),
        never_forks=st.booleans(),
        never_changes_mappings=st.booleans(),
        image_pid=st.one_of(st.none(), st.sampled_from([5, 7, 9])),
    ),
    st.builds(
        lambda version, **fields: opening(version, **fields),
        st.integers(0, 2),
        name=st.text(max_size=70),
        images=st.booleans(),
        pace=PACES,
    ),
    st.builds(set_pace, PACES),
).map(lambda request: request.SerializeToString())
FDS = st.one_of(
    st.sampled_from([("good", "memfd"), ("good",), ()]),
    st.lists(st.sampled_from(NAMES), max_size=FDS_MAX + 1).map(tuple),
)
DATA = st.one_of(REQUESTS, st.binary(min_size=1, max_size=40))


CHANGES = "put", "repeat", "drop", "cut", "flip", "fds", "fd", "swap"


def one_changed(fds: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    """Return *fds* with another one in the place of one, or of none, behind the last."""
    return st.builds(
        lambda at, name: (*fds[:at], name, *fds[at + 1 :]),
        st.integers(0, len(fds)),
        st.sampled_from(NAMES),
    )


@st.composite
def scripts(draw: st.DrawFn) -> list[Packet]:
    """Draw what a client sends: a right hand-off, of which some packets were changed."""
    script = list(draw(st.sampled_from(RIGHT)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(script) - 1)) if script else 0
        match draw(st.sampled_from(CHANGES)):
            case "put":
                script.insert(at, Packet(draw(DATA), draw(FDS)))
            case "repeat":
                script.insert(at, draw(st.sampled_from(PACKETS)))
            case "drop":
                del script[at : at + 1]
            case "cut" if script:
                data = script[at].data
                script[at] = replace(script[at], data=data[: draw(st.integers(1, len(data)))])
            case "flip" if script:
                flipped = bytearray(script[at].data)
                flipped[draw(st.integers(0, len(flipped) - 1))] ^= 1 << draw(st.integers(0, 7))
                script[at] = replace(script[at], data=bytes(flipped))
            case "fds" if script:
                script[at] = replace(script[at], fds=draw(FDS))
            case "fd" if script:
                script[at] = replace(script[at], fds=draw(one_changed(script[at].fds)))
            case "swap" if script:
                script.append(script.pop(at))
    return script


@dataclass(slots=True)
class Reader:
    """What a slow reader makes of packets that were taken: the regions of the last session."""

    sent: list[tuple[int, int, int, int]] = field(default_factory=list)
    outcomes: list[object] = field(default_factory=list)

    def read(self, data: bytes, outcome: object) -> None:
        """Hold *outcome* to the packet that it came of."""
        request = pb.Request.FromString(data)
        kind = request.WhichOneof("kind")
        self.outcomes.append(outcome)
        match outcome:
            case Opened(name, pace):
                assert (kind, request.open.version, name) == ("open", 1, request.open.name)
                assert is_pace(request.open.pace, pace)
            case Pace():
                assert kind == "set_pace"
                assert is_pace(request.set_pace.pace, outcome)
            case Attached(number):
                assert (kind, number) == ("attach", request.attach.id)
            case Listener():
                assert kind == "serve_criu"
            case Session() | Step.MORE:
                self._read_regions(request, outcome)
            case Step():
                assert kind == outcome.name.lower()

    def _read_regions(self, request: pb.Request, outcome: Session | Step) -> None:
        kind = request.WhichOneof("kind")
        if kind == "add_session":
            self.sent.clear()
        else:
            assert kind == "add_regions"
        part = request.add_session if kind == "add_session" else request.add_regions
        self.sent += [(r.start, r.nr_pages, r.offset, r.source) for r in part.regions]
        assert part.more == (outcome is Step.MORE)
        if isinstance(outcome, Session):
            check_session(outcome)
            if not request.add_session.HasField("image_pid"):
                assert regions_of(outcome.page_map) == self.sent


def is_pace(sent: pb.Pace, taken: Pace) -> bool:
    """Tell whether a pace is what was sent."""
    if sent.kind == pb.Pace.PACED:
        return sent.rate > 0 and taken == Pace(sent.rate)
    return not sent.rate and taken == {pb.Pace.EAGER: EAGER, pb.Pace.LAZY: LAZY}[sent.kind]


def regions_of(page_map: PageMap) -> list[tuple[int, int, int, int]]:
    """Return regions as they are sent."""
    return [(r.start, r.nr_pages, r.offset, r.source) for r in page_map]


def check_session(taken: Session) -> None:
    """Assert that a session can be served: its descriptors, and each region in its file."""
    found = uffd.describe(taken.fd)
    assert found is not None
    assert found.negotiated
    assert not found.blocking
    assert uffd.Feature.SIGBUS not in found.features
    end = 0
    for region in taken.page_map:
        assert region.nr_pages > 0
        assert region.start % PAGE == region.offset % PAGE == 0
        assert end <= region.start
        size = os.fstat(taken.sources[region.source].fd).st_size
        assert region.offset + region.nr_pages * PAGE <= size
        end = region.end


def converse(script: list[Packet], opened: dict[str, int]) -> list[object]:
    """Feed *script*, as far as it is taken, and return what came of it.  Raises Refused."""
    reader = Reader()
    with Protocol(LIMITS) as protocol:
        for packet in script:
            message = Message(packet.data, [os.dup(opened[name]) for name in packet.fds])
            with contextlib.closing(message):
                outcome = protocol.feed(message)
            try:
                reader.read(packet.data, outcome)
            finally:
                if isinstance(outcome, Session | Listener):
                    outcome.close()
    return reader.outcomes


@contextlib.contextmanager
def opened() -> Iterator[dict[str, int]]:
    """Return descriptors by name, that of a directory of images among them."""
    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(Path(directory), {7: 4}, {5})
        images = os.open(directory, os.O_RDONLY)
        try:
            yield descriptors() | {"images": images}
        finally:
            os.close(images)


@settings(deadline=None, max_examples=300)
@given(scripts())
def test_any_packets_are_taken_or_refused_and_leave_no_descriptor(script: list[Packet]) -> None:
    """What is not Refused was right, is as it was sent, and can be served; all else is closed."""
    with opened() as fds:
        before = nr_fds()
        try:
            outcomes = converse(script, fds)
        except Refused as error:
            assert 0 < len(error.reasons) <= REASONS_MAX + 1
            assert script not in RIGHT
        else:
            assert len(outcomes) == len(script)
        assert nr_fds() == before


@pytest.mark.parametrize("number", range(len(RIGHT)))
def test_unchanged_packets_are_taken(number: int) -> None:
    """What the changes begin with is taken to its end."""
    with opened() as fds:
        assert len(converse(RIGHT[number], fds)) == len(RIGHT[number])
