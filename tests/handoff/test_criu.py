"""CRIU's hand-off as a state machine: what each record does to it, and what it refuses."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypagesd.errors import HandoffError
from lazypagesd.handoff.criu import Protocol, Record, Stage, vet
from lazypagesd.kernel import fdpass
from lazypagesd.kernel.fdpass import Message
from lazypagesd.kernel.uffd import Feature

# linux/userfaultfd.h
UFFDIO_API = 0xC018AA3F
UFFD_API = 0xAA
EVENTS = Feature.EVENT_FORK | Feature.EVENT_REMAP | Feature.EVENT_REMOVE | Feature.EVENT_UNMAP

FINAL_WORD = struct.pack("=I", 0x52535446)

# Of each process of the checkpoint that most tests have: is it a zombie?
ZOMBIES = {7: False, 5: True, 8: False}


def pid(number: int) -> bytes:
    """Return how a pid is sent."""
    return struct.pack("=i", number)


def negotiate(fd: int, features: int = EVENTS) -> None:
    """Do UFFDIO_API."""
    fcntl.ioctl(fd, UFFDIO_API, struct.pack("QQQ", UFFD_API, features, 0))


@pytest.fixture
def uffd(userfaultfd: int) -> int:
    """Return a userfaultfd as CRIU makes it."""
    negotiate(userfaultfd)
    return userfaultfd


@pytest.fixture
def no_leak() -> Iterator[None]:
    """See that a test leaves as many descriptors open as it found."""
    before = nr_fds()
    yield
    assert nr_fds() == before


def nr_fds() -> int:
    """Return how many descriptors we have open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Conversation:
    """A hand-off over a real socket, ours and theirs in one thread."""

    def __init__(self, zombies: dict[int, bool]) -> None:
        self.protocol = Protocol(zombies)
        self.records: list[Record] = []
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._theirs.close()
        for record in self.records:
            os.close(record.fd)

    def say(self, data: bytes, *fds: int) -> None:
        """Send *data*, with descriptors beside it, and feed what is there."""
        if fds:
            socket.send_fds(self._theirs, [data], list(fds))
        else:
            self._theirs.send(data)
        self._feed()

    def end(self) -> None:
        """Close their end, and feed that."""
        self._theirs.close()
        self._feed()
        self._feed_one()

    def _feed(self) -> None:
        try:
            while self._feed_one():
                pass
        except BlockingIOError:
            return

    def _feed_one(self) -> bool:
        message = fdpass.receive(self._ours, self.protocol.wanted)
        try:
            record = self.protocol.feed(message)
        finally:
            message.close()
        if record is not None:
            self.records.append(record)
        return bool(message.data)


def refusal(conversation: Conversation, data: bytes, *fds: int) -> str:
    """Return the message of the HandoffError that *data* gives."""
    with pytest.raises(HandoffError) as caught:
        conversation.say(data, *fds)
    return str(caught.value)


@pytest.mark.uffd
@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("order", [(7, -5, 8), (8, 7, -5), (-5, 8, 7), (-5, 7, 8)])
def test_records_come_in_any_order(uffd: int, order: Sequence[int]) -> None:
    """Each live process is a record with its own descriptor, a zombie is none; then comes the
    word."""
    with Conversation(ZOMBIES) as conversation:
        for number in order:
            conversation.say(pid(number))
            if number > 0:
                conversation.say(b"\0", uffd)
        assert [record.pid for record in conversation.records] == [n for n in order if n > 0]
        assert len({uffd, *(record.fd for record in conversation.records)}) == 3
        assert conversation.protocol.stage is Stage.WORD
        conversation.say(FINAL_WORD)
        assert conversation.protocol.finished
        conversation.end()


def test_zombies_only_need_no_descriptor() -> None:
    """Zombies and the word are a whole hand-off."""
    with Conversation({5: True, 6: True}) as conversation:
        conversation.say(pid(-6) + pid(-5) + FINAL_WORD)
        assert conversation.protocol.finished
        assert conversation.records == []


def test_nothing_to_come_wants_the_word() -> None:
    """Without processes the word is all there is."""
    protocol = Protocol({})
    assert protocol.feed(Message(FINAL_WORD)) is None
    assert protocol.finished


@pytest.mark.uffd
def test_pidfd_goes_with_its_record(uffd: int) -> None:
    """The sender's pidfd is taken out of the message, which keeps nothing."""
    protocol = Protocol({7: False})
    protocol.feed(Message(pid(7)))
    fd, pidfd = os.dup(uffd), os.pidfd_open(os.getpid())
    message = Message(b"\0", [fd], os.getpid(), pidfd)
    assert protocol.feed(message) == Record(7, fd, pidfd)
    assert (message.fds, message.pidfd) == ([], None)
    os.close(fd)
    os.close(pidfd)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_pid_is_refused(length: int) -> None:
    """Fewer bytes than a pid has are no pid."""
    with Conversation(ZOMBIES) as conversation:
        message = refusal(conversation, pid(7)[:length])
    data = pid(7)[:length].hex()
    assert message == (
        f"hand-off: short read of a pid ({data}), 3 of the processes are yet to come"
    )


@pytest.mark.parametrize("number", [0, 1, 9, -9, 2**31 - 1, -(2**31)])
def test_unknown_pid_is_refused(number: int) -> None:
    """A pid that the images have not is from other images."""
    with Conversation(ZOMBIES) as conversation:
        message = refusal(conversation, pid(number))
    assert message == (
        f"hand-off: pid {number} is not in the checkpoint, or came before:"
        " restore from the same images directory"
    )


@pytest.mark.uffd
@pytest.mark.usefixtures("no_leak")
def test_pid_that_comes_twice_is_refused(uffd: int) -> None:
    """Each process comes once, a live one as well as a zombie."""
    with Conversation(ZOMBIES) as conversation:
        conversation.say(pid(7))
        conversation.say(b"\0", uffd)
        conversation.say(pid(-5))
        assert "pid -5 is not in the checkpoint, or came before" in refusal(conversation, pid(-5))
        assert "pid 7 is not in the checkpoint, or came before" in refusal(conversation, pid(7))


@pytest.mark.parametrize(("number", "found"), [(5, "a zombie"), (-7, "no zombie")])
def test_life_and_death_must_agree_with_the_images(number: int, found: str) -> None:
    """A zombie has no descriptor to give, and a live process has memory to be served."""
    with Conversation(ZOMBIES) as conversation:
        message = refusal(conversation, pid(number))
    assert message == f"hand-off: pid {number}: it is {found} in the checkpoint"


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("count", [0, 2, 3])
def test_wrong_number_of_descriptors_is_refused(count: int) -> None:
    """There is exactly one, and the others are closed."""
    with Conversation(ZOMBIES) as conversation, Path("/dev/null").open() as file:
        conversation.say(pid(7))
        message = refusal(conversation, b"\0", *[file.fileno()] * count)
    assert message == f"hand-off: {count} descriptors came for pid 7, not 1"


@pytest.mark.usefixtures("no_leak")
def test_descriptor_that_comes_with_the_pid_is_not_taken() -> None:
    """A descriptor in the wrong place is closed, and is missing in the right one."""
    with Conversation(ZOMBIES) as conversation, Path("/dev/null").open() as file:
        conversation.say(pid(7), file.fileno())
        assert "0 descriptors came for pid 7" in refusal(conversation, b"\0")


@pytest.mark.parametrize("word", [b"\0\0\0\0", FINAL_WORD[::-1], FINAL_WORD[:3], b"F"])
def test_wrong_final_word_is_refused(word: bytes) -> None:
    """Nothing but the whole word lets the processes be filled."""
    with Conversation({5: True}) as conversation:
        conversation.say(pid(-5))
        message = refusal(conversation, word)
        assert not conversation.protocol.finished
    assert message == f"hand-off: the final word is {word.hex()}, not 0x52535446"


@pytest.mark.usefixtures("no_leak")
def test_bytes_after_the_final_word_are_refused() -> None:
    """The word is the last that is said; a descriptor beside what follows is closed."""
    with Conversation({}) as conversation, Path("/dev/null").open() as file:
        conversation.say(FINAL_WORD)
        message = refusal(conversation, b"x", file.fileno())
    assert message == "hand-off: b'x' follows the final word"


# Each byte of a whole hand-off, by the pid whose descriptor goes with it.
STREAM = [
    *((byte, False) for byte in pid(7)),
    (0, True),
    *((byte, False) for byte in pid(-5) + pid(8)),
    (0, True),
    *((byte, False) for byte in FINAL_WORD),
]


@pytest.mark.uffd
@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("length", range(len(STREAM)))
def test_cut_anywhere_it_is_refused(uffd: int, length: int) -> None:
    """A hand-off of which any bytes are missing at the end is an error, and leaves nothing."""
    with Conversation(ZOMBIES) as conversation, pytest.raises(HandoffError):
        said = b""
        for byte, with_descriptor in STREAM[:length]:
            said += bytes([byte])
            if with_descriptor:
                conversation.say(said[:-1])
                conversation.say(said[-1:], uffd)
                said = b""
        if said:
            conversation.say(said)
        conversation.end()


@pytest.mark.uffd
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([], "the restore closed the connection while 3 of the processes are yet to come"),
        ([-5], "the restore closed the connection while 2 of the processes are yet to come"),
        ([7], "the restore closed the connection before the descriptor of 7"),
        ([-5, 7, None, 8, None], "the restore closed the connection before it had finished"),
    ],
)
def test_early_end_says_what_is_missing(
    uffd: int, said: Sequence[int | None], message: str
) -> None:
    """What the restore had yet to send is in the message."""
    with Conversation(ZOMBIES) as conversation:
        for number in said:
            if number is None:
                conversation.say(b"\0", uffd)
            else:
                conversation.say(pid(number))
        with pytest.raises(HandoffError) as caught:
            conversation.end()
    assert str(caught.value) == f"hand-off: {message}"


CHUNKS = st.lists(
    st.binary(max_size=4) | st.sampled_from([pid(7), pid(-5), pid(8), b"\0", FINAL_WORD])
)


@given(CHUNKS, st.dictionaries(st.integers(1, 9), st.booleans()))
def test_arbitrary_bytes_are_taken_or_refused(
    chunks: list[bytes], zombies: dict[int, bool]
) -> None:
    """Whatever is said, it is understood, or a HandoffError."""
    protocol = Protocol(zombies)
    for chunk in chunks:
        try:
            assert protocol.feed(Message(chunk[: protocol.wanted])) is None
        except HandoffError as error:
            assert str(error).startswith("hand-off: ")


def vetting(fd: int) -> str:
    """Return why vet() refuses *fd*."""
    with pytest.raises(HandoffError) as caught:
        vet(fd, 7)
    return str(caught.value)


REFUSED = "hand-off: the userfaultfd of pid 7 cannot be served: "


@pytest.mark.uffd
def test_good_descriptor_is_vetted(uffd: int) -> None:
    """All four events and O_NONBLOCK are all that it takes."""
    vet(uffd, 7)


@pytest.mark.uffd
def test_further_features_do_no_harm(userfaultfd: int) -> None:
    """What is negotiated beyond the events is the restore's affair."""
    negotiate(userfaultfd, EVENTS | Feature.THREAD_ID)
    vet(userfaultfd, 7)


@pytest.mark.uffd
def test_blocking_descriptor_is_refused(uffd: int) -> None:
    """A blocking one cannot be polled."""
    os.set_blocking(uffd, True)
    assert vetting(uffd) == f"{REFUSED}it is blocking: open it with O_NONBLOCK"


@pytest.mark.uffd
def test_sigbus_is_refused(userfaultfd: int) -> None:
    """One whose faults are signals sends no messages."""
    negotiate(userfaultfd, EVENTS | Feature.SIGBUS)
    assert vetting(userfaultfd) == (
        f"{REFUSED}it has UFFD_FEATURE_SIGBUS, and so sends no messages: do without"
    )


@pytest.mark.uffd
def test_descriptor_that_is_not_negotiated_is_refused(userfaultfd: int) -> None:
    """UFFDIO_API is for whoever opened it to do."""
    assert vetting(userfaultfd) == f"{REFUSED}its API is not negotiated: do UFFDIO_API first"


@pytest.mark.uffd
@pytest.mark.parametrize("missing", list(EVENTS))
def test_each_event_is_necessary(userfaultfd: int, missing: Feature) -> None:
    """Without any of the events, memory would be filled where it is no more."""
    negotiate(userfaultfd, EVENTS & ~missing)
    assert vetting(userfaultfd) == (
        f"{REFUSED}it lacks {missing.name}: ask for all four events in UFFDIO_API"
    )


@pytest.mark.uffd
def test_every_reason_is_given(userfaultfd: int) -> None:
    """What is wrong is said all at once."""
    negotiate(userfaultfd, Feature.EVENT_FORK | Feature.EVENT_UNMAP | Feature.SIGBUS)
    os.set_blocking(userfaultfd, True)
    reasons = vetting(userfaultfd).removeprefix(REFUSED).split("; ")
    assert [reason.split(":")[0] for reason in reasons] == [
        "it is blocking",
        "it lacks EVENT_REMAP|EVENT_REMOVE",
        "it has UFFD_FEATURE_SIGBUS, and so sends no messages",
    ]


def test_other_descriptors_are_refused(tmp_path: Path) -> None:
    """A file or a pipe is none, and the message says what it is."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        assert vetting(file.fileno()) == (
            f"hand-off: the descriptor of pid 7 is no userfaultfd ({path})"
        )
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd), os.fdopen(write_fd, "w"):
        assert "no userfaultfd (pipe:[" in vetting(read_fd)
