"""The hand-off for any tool as a state machine: what each packet does to it, what it refuses."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypagesd.engine.pace import EAGER
from lazypagesd.handoff.native import (
    Limits,
    Listener,
    Opened,
    Protocol,
    Session,
    Step,
)
from lazypagesd.handoff.packets import FDS_MAX, PACKET_MAX, REASONS_MAX, Refused
from lazypagesd.kernel import fdpass
from lazypagesd.kernel.channel import ALL_TYPES, Type
from lazypagesd.kernel.fdpass import Message
from lazypagesd.kernel.uffd import Feature
from lazypagesd.proto import handoff_pb2 as pb
from tests.handoff.test_criu import EVENTS, negotiate
from tests.service.restorer import write_checkpoint
from tests.service.serving import ABORT, FINISHED, PROGRESS, RELEASE, opening, session
from tests.support.descriptors import dead_directory

START = 0x100000000000
PAGE_SIZE = 4096
REGION = pb.Region(start=START, nr_pages=1)
MORE = pb.Request(add_regions=pb.AddRegions(regions=[REGION]))
SERVE_CRIU = pb.Request(serve_criu=pb.ServeCriu())


class Machine:
    """A protocol, and descriptors to feed it with."""

    def __init__(self, directory: Path) -> None:
        self.protocol = Protocol(Limits(sessions=2, regions=3))
        self.images = directory / "images"
        self.file = directory / "file"
        self.file.write_bytes(bytes(2 * PAGE_SIZE))

    def feed(self, request: pb.Request | bytes, *fds: int) -> object:
        """Feed a packet with duplicates of *fds*; close what that brought."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        message = Message(data, [os.dup(fd) for fd in fds])
        try:
            outcome = self.protocol.feed(message)
        finally:
            message.close()
        if isinstance(outcome, Session):
            fdpass.close_all(fd for fd in (outcome.fd, outcome.pidfd) if fd is not None)
        if isinstance(outcome, Listener):
            outcome.socket.close()
        return outcome

    def feed_file(self, request: pb.Request, *fds: int) -> object:
        """The same, with the file as the last descriptor."""
        with self.file.open("rb") as file:
            return self.feed(request, *fds, file.fileno())

    def refuses(self, request: pb.Request | bytes, *fds: int) -> str:
        """Feed a packet that is refused, and return why."""
        with pytest.raises(Refused) as caught:
            self.feed(request, *fds)
        return "; ".join(caught.value.reasons)

    def open_images(self) -> None:
        """Open with the images of process 7 and zombie 5."""
        write_checkpoint(self.images, {7: 4}, {5})
        fd = os.open(self.images, os.O_RDONLY)
        try:
            self.feed(opening(images=True), fd)
        finally:
            os.close(fd)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine that leaves as many descriptors open as it found."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted
    machine = Machine(tmp_path)
    yield machine
    machine.protocol.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - counted


@pytest.fixture
def uffd(userfaultfd: int) -> int:
    """Return a userfaultfd as a restore tool should make it."""
    negotiate(userfaultfd)
    return userfaultfd


@pytest.mark.uffd
def test_restore_is_handed_over(machine: Machine, uffd: int) -> None:
    """A session is there when its list of regions is complete, with its pidfd and files."""
    assert machine.feed(opening(name="web")) == Opened("web", EAGER)
    pidfd = os.pidfd_open(os.getpid())
    request = session([REGION], pidfd=True, more=True)
    assert machine.feed_file(request, uffd, pidfd) is Step.MORE
    os.close(pidfd)
    second = pb.Region(start=START + PAGE_SIZE, nr_pages=1, offset=PAGE_SIZE)
    outcome = machine.feed(pb.Request(add_regions=pb.AddRegions(regions=[second])))
    assert isinstance(outcome, Session)
    assert outcome.pidfd is not None
    assert [(r.start, r.nr_pages, r.offset, r.source) for r in outcome.page_map] == [
        (START, 1, 0, 0),
        (START + PAGE_SIZE, 1, PAGE_SIZE, 0),
    ]
    assert [source.size for source in outcome.sources] == [2 * PAGE_SIZE]
    steps = [machine.feed(request) for request in (PROGRESS, FINISHED, RELEASE, PROGRESS)]
    assert steps == [Step.PROGRESS, Step.FINISHED, Step.RELEASE, Step.PROGRESS]


@pytest.mark.uffd
def test_session_may_be_of_an_image(machine: Machine, uffd: int) -> None:
    """A process of the images brings its regions and files from there."""
    machine.open_images()
    outcome = machine.feed(session(image_pid=7), uffd)
    assert isinstance(outcome, Session)
    assert outcome.page_map.nr_pages == 4
    assert [source.name for source in outcome.sources] == ["pages-7.img"]
    assert machine.refuses(session(image_pid=5), uffd) == (
        "image_pid: 5 is no live process of the images"
    )


@pytest.mark.uffd
@pytest.mark.parametrize(
    ("before", "request_", "reason"),
    [
        ([], PROGRESS, "progress: begin with open or attach, and do so once"),
        ([opening()], opening(), "open: begin with open or attach, and do so once"),
        ([opening()], MORE, "add_regions: no session's list goes on"),
        ([opening()], RELEASE, "release: before finished"),
        ([opening()], SERVE_CRIU, "serve_criu: open with images"),
        ([opening(), FINISHED], FINISHED, "finished: too late"),
        ([opening(), FINISHED], ABORT, "abort: too late"),
        ([opening(), FINISHED], session(), "add_session: too late"),
        ([opening(), session(more=True)], FINISHED, "finished: the list of the last session"),
        ([opening(), session(more=True)], session(), "add_session: the list of the last session"),
    ],
)
def test_order_is_kept(
    machine: Machine, uffd: int, before: list[pb.Request], request_: pb.Request, reason: str
) -> None:
    """What comes at the wrong time is refused."""
    for request in before:
        machine.feed(request, *([uffd] if request.HasField("add_session") else []))
    assert machine.refuses(request_).startswith(reason)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (opening(2), "version 2: this daemon speaks version 1"),
        (opening(name="a\nb"), "name: let it have at most 64 printable ASCII characters"),
        (opening(name="a" * 65), "name: let it have at most 64 printable ASCII characters"),
        (opening(images=True), "images: True comes with one descriptor, of a directory, not 0"),
        (b"\xff", "the packet is no Request (ff)"),
        (b"\x0a\x02\x20\x01", "the request has fields that are not known: speak version 1"),
        (b"\xf8\x07\x01", "the request has fields that are not known: speak version 1"),
        (bytes(PACKET_MAX + 1), f"the packet is too long: send at most {PACKET_MAX} bytes"),
    ],
)
def test_wrong_beginning_is_refused(
    machine: Machine, request_: pb.Request | bytes, reason: str
) -> None:
    """What is no open, or one that is not understood, is refused."""
    assert machine.refuses(request_) == reason


def test_unsuitable_descriptors_are_refused(machine: Machine) -> None:
    """Descriptors that are too many, too few, or of the wrong kind are refused and closed."""
    machine.feed(opening())
    with machine.file.open("rb") as file:
        fd = file.fileno()
        assert machine.refuses(PROGRESS, fd) == "progress comes without descriptors, not with 1"
        many = machine.refuses(PROGRESS, *[fd] * (FDS_MAX + 1))
        assert many == f"17 descriptors: send at most {FDS_MAX}"
        assert machine.refuses(session()) == "only 0 descriptors came: some are missing"
        assert machine.refuses(session(), fd) == (
            f"descriptor 0 is no userfaultfd ({machine.file})"
        )
        assert machine.refuses(session(pidfd=True), fd, fd).endswith(
            f"descriptor 1 is no pidfd ({machine.file})"
        )


def test_broken_images_are_refused(machine: Machine) -> None:
    """Images are checked with open, and the file that is wrong is named."""
    write_checkpoint(machine.images, {7: 4}, set())
    (machine.images / "pages-7.img").write_bytes(bytes(PAGE_SIZE))
    fd = os.open(machine.images, os.O_RDONLY)
    assert "images: pages-7.img at offset" in machine.refuses(opening(images=True), fd)
    os.close(fd)
    assert "images: " in machine.refuses(opening(images=True), 0)


@pytest.mark.uffd
def test_every_reason_is_given(machine: Machine, userfaultfd: int) -> None:
    """All that is wrong with a session is said at once, before the process runs."""
    negotiate(userfaultfd, EVENTS & ~Feature.EVENT_FORK | Feature.SIGBUS)
    os.set_blocking(userfaultfd, True)
    machine.feed(opening())
    regions = [pb.Region(start=START + 1, nr_pages=9), pb.Region(start=START, nr_pages=1)]
    with pytest.raises(Refused) as caught:
        machine.feed_file(session(regions, image_pid=7), userfaultfd)
    assert [reason.partition(": ")[2].split(":")[0] for reason in caught.value.reasons] == [
        "it is blocking",
        "it lacks EVENT_FORK",
        "it has UFFD_FEATURE_SIGBUS, and so sends no messages",
        "comes instead of regions and files, not with them",
        "no images came with open",
        "is not aligned (offset 0x0)",
        f"needs {9 * PAGE_SIZE} bytes of file 0, which has {2 * PAGE_SIZE}",
    ]


@pytest.mark.uffd
@pytest.mark.parametrize(
    ("features", "waiver"),
    [
        (EVENTS & ~Feature.EVENT_FORK, session(never_forks=True)),
        (Feature.EVENT_FORK, session(never_changes_mappings=True)),
    ],
)
def test_events_may_be_waived(
    machine: Machine, userfaultfd: int, features: Feature, waiver: pb.Request
) -> None:
    """A process that never does what an event tells of may do without the event."""
    negotiate(userfaultfd, features)
    machine.feed(opening())
    assert isinstance(machine.feed(waiver, userfaultfd), Session)
    assert "it lacks" in machine.refuses(session(), userfaultfd)


@pytest.mark.uffd
def test_threads_may_be_told_apart(machine: Machine, userfaultfd: int) -> None:
    """A restorer may let the kernel say whose fault it is."""
    negotiate(userfaultfd, EVENTS | Feature.THREAD_ID)
    machine.feed(opening())
    assert isinstance(machine.feed(session(), userfaultfd), Session)


@pytest.mark.parametrize(
    ("waivers", "types"),
    [
        ([], Type(ALL_TYPES)),
        (["never_forks"], Type(ALL_TYPES) & ~Type.FORK),
        (["never_changes_mappings"], Type.PAGEFAULT | Type.FORK),
        (["never_forks", "never_changes_mappings"], Type.PAGEFAULT),
    ],
)
def test_channel_has_to_send_what_is_not_waived(
    machine: Machine, waivers: list[str], types: Type
) -> None:
    """A channel comes with what it has to tell of; a userfaultfd has said it already."""
    machine.feed(opening())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        request = session(channel=True)
        for waiver in waivers:
            setattr(request.add_session, waiver, True)
        outcome = machine.feed(request, ours.fileno())
    assert isinstance(outcome, Session)
    assert outcome.channel == types


def test_other_descriptors_are_no_channels(machine: Machine) -> None:
    """What is no connected SOCK_SEQPACKET socket is refused, and what it is instead is said."""
    machine.feed(opening())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        assert machine.refuses(session(channel=True), sock.fileno()).startswith(
            "descriptor 0 is no channel: it is not connected: hand over one end of a socketpair()"
        )
    with machine.file.open("rb") as file:
        assert machine.refuses(session(channel=True), file.fileno()) == (
            f"descriptor 0 is no channel: it is no socket ({machine.file})"
        )


@pytest.mark.uffd
def test_limits_hold(machine: Machine, uffd: int) -> None:
    """A restore has no more sessions and regions than it may, and few reasons fit an answer."""
    machine.feed(opening())
    machine.feed(session(), uffd)
    machine.feed(session(), uffd)
    assert machine.refuses(session([REGION] * 4), uffd) == (
        "a restore has at most 2 sessions here; a restore has at most 3 regions here"
    )
    refused = Refused(["\udcff" * 10_000] * 1_000)
    assert len(refused.reasons) == REASONS_MAX + 1
    answer = pb.Answer(refused=refused.reasons)
    assert answer.ByteSize() < PACKET_MAX


def test_criu_is_waited_for_at_a_socket(machine: Machine) -> None:
    """Images and a socket that listens are all that it takes; other sockets are refused."""
    machine.open_images()
    with (
        socket.socket(socket.AF_UNIX) as silent,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        listening.bind("")
        listening.listen()
        assert machine.refuses(SERVE_CRIU, silent.fileno()).endswith("call listen() first")
        assert "not of AF_UNIX and SOCK_STREAM" in machine.refuses(SERVE_CRIU, datagrams.fileno())
        assert "no socket" in machine.refuses(SERVE_CRIU, 0)
        assert isinstance(machine.feed(SERVE_CRIU, listening.fileno()), Listener)
    assert machine.refuses(FINISHED) == "finished: too late, the hand-off is over"


@pytest.mark.uffd
def test_what_the_kernel_does_not_describe_is_refused(machine: Machine, uffd: int) -> None:
    """Whatever it is passed as, what fstat() fails for is no more than something else."""
    with dead_directory() as fd:
        assert "images" in machine.refuses(opening(images=True), fd)
    machine.open_images()
    with dead_directory() as fd:
        assert "file 0: cannot be looked at (/proc/" in machine.refuses(
            session([REGION]), uffd, fd
        )
        assert "is no pidfd (/proc/" in machine.refuses(session(pidfd=True), uffd, fd)
        assert "it is no socket (/proc/" in machine.refuses(session(channel=True), fd)
        assert "is no userfaultfd (/proc/" in machine.refuses(session(), fd)
        assert "no socket (/proc/" in machine.refuses(SERVE_CRIU, fd)


def test_path_of_a_socket_is_refused(machine: Machine) -> None:
    """What was opened with O_PATH is no socket, and is closed."""
    machine.open_images()
    path = machine.images / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(path))
    fd = os.open(path, os.O_PATH)
    assert machine.refuses(SERVE_CRIU, fd).endswith(f"no socket ({path})")
    os.close(fd)


@given(st.binary(min_size=1, max_size=60), st.integers(0, 2))
def test_any_packet_is_taken_or_refused(data: bytes, nr_fds: int) -> None:
    """No bytes raise anything but Refused, or leave a descriptor behind."""
    protocol = Protocol(Limits())
    protocol.feed(Message(opening().SerializeToString()))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted
    message = Message(data, [os.dup(0) for _ in range(nr_fds)])
    try:
        protocol.feed(message)
    except Refused as error:
        assert error.reasons
    finally:
        message.close()
        protocol.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - counted
