"""Messages with descriptors, and with who sent them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazypagesd.kernel.fdpass import MAX_FDS, ask_for_sender, receive


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected sockets; the first asks who the sender is, where that can be asked."""
    receiving, sending = socket.socketpair()
    with receiving, sending:
        yield receiving, sending


def nr_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def send(sock: socket.socket, data: bytes, nr_fds: int) -> None:
    """Send pipes' ends, and keep none."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(nr_fds)]
    socket.send_fds(sock, [data], fds)
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("nr_fds", [0, 1, 3, MAX_FDS])
def test_descriptors_come_with_their_bytes(
    pair: tuple[socket.socket, socket.socket], nr_fds: int
) -> None:
    """As many descriptors as were sent are received, and none outlives close()."""
    before = nr_open()
    send(pair[1], b"hello", nr_fds)
    message = receive(pair[0], 100)
    assert (message.data, len(message.fds)) == (b"hello", nr_fds)
    assert nr_open() == before + nr_fds
    assert not any(os.get_inheritable(fd) for fd in message.fds)
    message.close()
    assert nr_open() == before


def test_what_is_taken_stays_open(pair: tuple[socket.socket, socket.socket]) -> None:
    """A descriptor that was taken is the taker's; the others are closed."""
    before = nr_open()
    send(pair[1], b"x", 2)
    message = receive(pair[0], 1)
    taken = message.take_fd()
    message.close()
    assert taken is not None
    assert nr_open() == before + 1
    os.close(taken)
    assert message.take_fd() is None


def test_closing_twice_closes_once(pair: tuple[socket.socket, socket.socket]) -> None:
    """A message that is closed has nothing left to close."""
    send(pair[1], b"x", 1)
    message = receive(pair[0], 1)
    message.close()
    again = os.open("/dev/null", os.O_RDONLY)
    message.close()
    os.fstat(again)
    os.close(again)


def test_sender_is_named_if_asked_for(pair: tuple[socket.socket, socket.socket]) -> None:
    """With each message comes its sender's pid, and a pidfd where the kernel gives one."""
    before = nr_open()
    has_pidfd = ask_for_sender(pair[0])
    send(pair[1], b"x", 1)
    message = receive(pair[0], 1)
    assert message.pid == os.getpid()
    assert (message.pidfd is not None) == has_pidfd
    message.close()
    assert nr_open() == before
    assert message.take_pidfd() is None


def test_sender_is_named_by_what_a_listener_accepts(tmp_path: Path) -> None:
    """What is asked of a listener holds for its connections, and their pidfds can be taken."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as sending:
        has_pidfd = ask_for_sender(listener)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        sending.connect(str(tmp_path / "s"))
        receiving, _ = listener.accept()
        with receiving:
            sending.send(b"hello")
            message = receive(receiving, 100)
            assert (message.data, message.fds, message.pid) == (b"hello", [], os.getpid())
            pidfd = message.take_pidfd()
            assert (pidfd is not None) == has_pidfd
            if pidfd is not None:
                assert f"Pid:\t{os.getpid()}" in Path(f"/proc/self/fdinfo/{pidfd}").read_text()
                os.close(pidfd)
            message.close()


def test_nobody_is_named_unasked(pair: tuple[socket.socket, socket.socket]) -> None:
    """A socket that was not asked says nothing of the sender."""
    pair[1].send(b"x")
    message = receive(pair[0], 1)
    assert (message.pid, message.pidfd) == (None, None)


def test_end_of_the_stream_is_an_empty_message(pair: tuple[socket.socket, socket.socket]) -> None:
    """Once the sender has closed, there are no bytes and no descriptors."""
    pair[1].close()
    message = receive(pair[0], 1)
    assert (message.data, message.fds) == (b"", [])


def test_nothing_to_receive_does_not_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    """A non-blocking socket without a message raises BlockingIOError."""
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        receive(pair[0], 1)
