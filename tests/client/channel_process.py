"""A process that hands itself over, with a channel, and says what it sees: run by test_channel.py.

Its arguments are the daemon's socket, a file, and what to do.  It is a restore tool and what is
restored in one, and imports nothing but the client.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from lazypagesd.client import Region, Restore, channel

PAGE = 4096
NR_PAGES = 128
HALF = 64 * PAGE
SIZE = NR_PAGES * PAGE

Memory = mmap.mmap
Deed = Callable[[Memory, int, bytes], None]


def reserve(size: int) -> Memory:
    """Return private anonymous memory."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def hand_over(restore: Restore, file: int, memory: Memory) -> int:
    """Hand *memory* of this process over, to be filled from *file*; return its address."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    addr = channel.address(memory)

    def add_session() -> None:
        with theirs:
            regions = [Region(addr, NR_PAGES, 0)]
            restore.add_session(theirs.fileno(), channel=True, regions=regions, files=[file])

    adding = threading.Thread(target=add_session)
    adding.start()
    channel.open(ours.detach())
    adding.join()
    channel.register(addr, len(memory))
    return addr


def read(memory: Memory, _addr: int, expected: bytes) -> None:
    """Every byte is right, and what the file does not have is zero."""
    assert memory[:SIZE] == expected
    assert memory[SIZE:] == bytes(len(memory) - SIZE)


def populate(memory: Memory, addr: int, expected: bytes) -> None:
    """A system call gets EFAULT where something is missing, and what is right once it is not."""
    fd = os.memfd_create("written")
    with memoryview(memory) as view:
        try:
            os.write(fd, view[:PAGE])
            raise AssertionError("written, though it was missing")
        except OSError as error:
            assert error.strerror == "Bad address"
        channel.populate(addr, SIZE)
        assert os.write(fd, view[:SIZE]) == SIZE
    assert os.pread(fd, SIZE, 0) == expected


def change(memory: Memory, addr: int, expected: bytes) -> None:
    """What is discarded is zero, and what is moved is where it was moved to."""
    channel.discard(addr + PAGE, PAGE)
    channel.mremap(addr + HALF, HALF, addr + SIZE)
    assert memory[SIZE:] == expected[HALF:]
    assert memory[:HALF] == expected[:PAGE] + bytes(PAGE) + expected[2 * PAGE : HALF]


def unmap(memory: Memory, addr: int, expected: bytes) -> None:
    """What is unmapped is gone, and the rest is right."""
    channel.munmap(addr + HALF, len(memory) - HALF)
    assert memory[:HALF] == expected[:HALF]
    fd = os.memfd_create("written")
    try:
        os.write(fd, memoryview(memory)[HALF:])
        raise AssertionError("still mapped")
    except OSError as error:
        assert error.strerror == "Bad address"
    os._exit(0)  # the memory as Python has it is there no more


def fork(memory: Memory, addr: int, expected: bytes) -> None:
    """A child reads right what neither has read before, whatever its parent has written."""
    memory[0] = 1
    if (pid := os.fork()) == 0:
        memory[PAGE] = 2
        right = memory[: 2 * PAGE] == (
            b"\x01" + expected[1:PAGE] + b"\x02" + expected[PAGE + 1 : 2 * PAGE]
        )
        os._exit(0 if right and memory[HALF:SIZE] == expected[HALF:] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert memory[1:SIZE] == expected[1:]


def fork_untold(memory: Memory, addr: int, expected: bytes) -> None:
    """A child that cannot be told of dies where something is missing; its parent goes on."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    os.setresuid(65534, 65534, 65534)
    ours, theirs = socket.socketpair()
    try:
        for _ in range(100):  # as many as may be under way
            socket.send_fds(ours, [b"?"], [theirs.fileno()])
        raise AssertionError("any number may be under way")
    except OSError as error:
        assert error.strerror == "Too many references: cannot splice"
    if (pid := os.fork()) == 0:
        os._exit(memory[0])
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGSEGV
    assert memory[:SIZE] == expected


DEEDS: dict[str, Deed] = {
    deed.__name__: deed for deed in (read, populate, change, unmap, fork, fork_untold)
}


def main() -> None:
    """Be filled, and do what the last argument says, before and while the rest is filled."""
    path, file_path, what = sys.argv[1:]
    memory = reserve(SIZE + HALF)
    file = os.open(file_path, os.O_RDONLY)
    with Restore.open("", Path(path)) as restore:
        addr = hand_over(restore, file, memory)
        DEEDS[what](memory, addr, Path(file_path).read_bytes())
        restore.finished()
        assert restore.release().ended


if __name__ == "__main__":
    main()
