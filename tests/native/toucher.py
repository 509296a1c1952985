"""A process whose memory is filled from outside, and which calls and reads what it is told to.

Each command has a thread of its own, so that several can wait for their pages or events at once.
Run as a script, this file is that process; it imports nothing of the project's. A hole of four
pages or more that is made in its mappings may be filled at once, by what its interpreter
allocates: move and unmap less.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import platform
import select
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

PAGE = 4096
DEADLINE_S = 20.0

# asm/unistd_64.h and asm-generic/unistd.h; linux/userfaultfd.h
USERFAULTFD_SYSCALLS = {"x86_64": 323, "aarch64": 282}
USERFAULTFD_IOC_NEW = 0xAA00
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
EVENT_FORK_REMAP_REMOVE_UNMAP = 0x4E

# asm-generic/mman-common.h and linux/mman.h; not in Python's mmap
MAP_FIXED = 0x10
MREMAP_MAYMOVE_FIXED = 3
MAPPING = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE

LARGEST_REPLY = 1 << 19


class Toucher:
    """The process, from here. *uffd* is its userfaultfd, of which it keeps no copy; whoever gives
    it away sets it to None. *arena* is the address of *nr_pages* registered pages, behind which
    as many are reserved."""

    def __init__(self, nr_pages: int) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A sanitizer that was put into this process has no business in that one.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        arguments = [sys.executable, __file__, str(theirs.fileno()), str(nr_pages)]
        self._process = subprocess.Popen(arguments, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        self._socket.settimeout(DEADLINE_S)
        data, fds, _, _ = socket.recv_fds(self._socket, 64, 1)
        self.uffd: int | None = fds[0]
        os.set_inheritable(fds[0], False)
        self.pid = self._process.pid
        self.arena = int(data)
        self.reserved = self.arena + nr_pages * PAGE
        self._replies: dict[int, Any] = {}
        self._nr_commands = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._socket.close()
        if self.uffd is not None:
            os.close(self.uffd)

    def give_uffd(self) -> int:
        """Hand over the descriptor."""
        fd, self.uffd = self.uffd, None
        assert fd is not None
        return fd

    def kill(self) -> None:
        """End it, and wait until it has ended."""
        self._process.kill()
        # What waits for an event to be read goes on once it is killed.
        self._process.wait(DEADLINE_S)

    def start(self, function: str, *arguments: int) -> int:
        """Let a new thread call a function of libc; or ``read``, addr and nr_pages. Returns what
        result() wants to know."""
        self._nr_commands += 1
        self._socket.send(json.dumps([self._nr_commands, function, *arguments]).encode())
        return self._nr_commands

    def result(self, command: int) -> Any:
        """Wait for a command: what it returned, or -errno; of ``read`` the first byte of each
        page."""
        while command not in self._replies:
            number, reply = json.loads(self._socket.recv(LARGEST_REPLY))
            self._replies[number] = reply
        return self._replies.pop(command)

    def call(self, function: str, *arguments: int) -> Any:
        """Start a command and wait for it."""
        return self.result(self.start(function, *arguments))

    def has_replied(self) -> bool:
        """Whether a reply has come that nobody has asked for yet."""
        return bool(self._replies or select.select([self._socket], [], [], 0)[0])

    def nr_waiting_for_events(self) -> int:
        """How many of its threads wait until their event is read."""
        return sum(map(waits_for_event, Path(f"/proc/{self.pid}/task").iterdir()))


def waits_for_event(task: Path) -> bool:
    """Whether a thread sleeps until its event is read, or is just about to go on from there."""
    with contextlib.suppress(OSError):
        place = (task / "wchan").read_text()
        if place != "0":
            return place.startswith("userfaultfd_event_wait")
        # Not for us to know, or running: in a sleep that only a kill ends, which no fault is.
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "D"
    return False


def open_userfaultfd() -> int:
    libc = ctypes.CDLL(None)
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    fd: int = libc.syscall(USERFAULTFD_SYSCALLS[platform.machine()], flags)
    if fd < 0:
        with Path("/dev/userfaultfd").open("rb") as device:
            fd = fcntl.ioctl(device, USERFAULTFD_IOC_NEW, flags)
    fcntl.ioctl(fd, UFFDIO_API, struct.pack("3Q", 0xAA, EVENT_FORK_REMAP_REMOVE_UNMAP, 0))
    return fd


def run(libc: ctypes.CDLL, function: str, *arguments: int) -> int | list[int]:
    if function == "read":
        addr, nr_pages = arguments
        page = ctypes.create_string_buffer(PAGE)
        found = []
        for i in range(nr_pages):
            # Without the GIL, unlike string_at(): others must go on while this one waits.
            libc.memcpy(page, ctypes.c_void_p(addr + i * PAGE), ctypes.c_size_t(PAGE))
            assert page.raw == page.raw[:1] * PAGE
            found.append(page.raw[0])
        return found
    called = getattr(libc, function)
    called.restype = ctypes.c_long
    result: int = called(*map(ctypes.c_long, arguments))
    return -ctypes.get_errno() if result == -1 else result


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    size = int(sys.argv[2]) * PAGE
    libc = ctypes.CDLL(None, use_errno=True)

    arena = run(libc, "mmap", 0, 2 * size, 0, MAPPING & ~MAP_FIXED, -1, 0)
    assert isinstance(arena, int)
    run(libc, "mmap", arena, size, READ_WRITE, MAPPING, -1, 0)
    uffd = open_userfaultfd()
    fcntl.ioctl(uffd, UFFDIO_REGISTER, struct.pack("4Q", arena, size, 1, 0))
    socket.send_fds(sock, [str(arena).encode()], [uffd])
    os.close(uffd)

    def obey(number: int, *command: Any) -> None:
        sock.send(json.dumps([number, run(libc, *command)]).encode())

    while request := sock.recv(LARGEST_REPLY):
        threading.Thread(target=obey, args=json.loads(request), daemon=True).start()
    os._exit(0)


if __name__ == "__main__":
    main()
