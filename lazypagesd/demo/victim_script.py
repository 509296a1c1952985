"""The victim of the demo where there is no C compiler: victim.c and hand_over.c in Python.

A script of its own, run by its path, that imports nothing but the standard library.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import mmap
import os
import platform
import socket
import struct
import sys
import time
from pathlib import Path

MEMORY_ADDR = 0x100000000000  # as in victim.h
PAGE_SIZE = 4096
MASK = (1 << 64) - 1

MAP_FIXED_NOREPLACE = 0x100000
SYS_USERFAULTFD = {"x86_64": 323}.get(platform.machine(), 282)
UFFD_API = 0xAA
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_REGISTER_MODE_MISSING = 1
EVENT_FORK, EVENT_REMAP, EVENT_REMOVE, EVENT_UNMAP = 1 << 1, 1 << 2, 1 << 3, 1 << 6
LAZY_PAGES_RESTORE_FINISHED = 0x52535446  # "RSTF", sent by criu restore

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


def main() -> None:
    """Fill memory, or have it filled, and serve."""
    path, nr_pages, *restored = sys.argv[1:]
    memory = Memory(int(nr_pages))
    answers = 0
    if restored:
        answers = int(restored[0])
        hand_over(restored[1], int(restored[2]), memory)
    else:
        memory.fill()
    serve(path, memory, answers)


class Memory:
    """Pages at MEMORY_ADDR; each repeats one word."""

    def __init__(self, nr_pages: int) -> None:
        self.nr_pages = nr_pages
        self.size = nr_pages * PAGE_SIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        prot = mmap.PROT_READ | mmap.PROT_WRITE
        if LIBC.mmap(MEMORY_ADDR, self.size, prot, flags, -1, 0) != MEMORY_ADDR:
            raise OSError(ctypes.get_errno(), "mmap")

    def fill(self) -> None:
        """Write every page."""
        for page in range(self.nr_pages):
            ctypes.memmove(MEMORY_ADDR + page * PAGE_SIZE, expected(page), PAGE_SIZE)

    def read(self, page: int) -> bytes:
        """Return the bytes of *page*, which may have to come first."""
        return ctypes.string_at(MEMORY_ADDR + page * PAGE_SIZE, PAGE_SIZE)


def expected(page: int) -> bytes:
    """Return what *page* must be: splitmix64 of its number, repeated."""
    x = (page + 1) * 0x9E3779B97F4A7C15 & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return struct.pack("=Q", x ^ (x >> 31)) * (PAGE_SIZE // 8)


def hand_over(work_dir: str, pid: int, memory: Memory) -> None:
    """Let the daemon at *work_dir* fill *memory* as that of process *pid* of its images."""
    uffd = open_userfaultfd()
    os.chdir(work_dir)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.connect("lazy-pages.socket")
        daemon.sendall(struct.pack("=i", pid))
        rights = array.array("i", [uffd])
        daemon.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        mode = UFFDIO_REGISTER_MODE_MISSING
        register = struct.pack("=4Q", MEMORY_ADDR, memory.size, mode, 0)
        fcntl.ioctl(uffd, UFFDIO_REGISTER, register)
        os.close(uffd)
        daemon.sendall(struct.pack("=I", LAZY_PAGES_RESTORE_FINISHED))


def open_userfaultfd() -> int:
    """Return a userfaultfd with all four events; the fork event needs CAP_SYS_PTRACE."""
    features = EVENT_FORK | EVENT_REMAP | EVENT_REMOVE | EVENT_UNMAP
    uffd: int = LIBC.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if uffd < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd: " + os.strerror(ctypes.get_errno()))
    try:
        fcntl.ioctl(uffd, UFFDIO_API, struct.pack("=3Q", UFFD_API, features, 0))
    except PermissionError as error:
        raise PermissionError(error.errno, "userfaultfd: UFFDIO_API: not permitted") from error
    return uffd


def serve(path: str, memory: Memory, answers: int) -> None:
    """Answer for ever: see victim.c for what."""
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(8)
        while True:
            client, _ = listener.accept()
            with client, client.makefile("r") as lines:
                for line in lines:
                    answers += line.startswith("get")
                    client.sendall(f"{answer(line.split(), memory, answers)}\n".encode())


def answer(question: list[str], memory: Memory, answers: int) -> str:
    """Return the line that answers *question*."""
    if question[0] == "verify":
        nr_wrong = sum(memory.read(page) != expected(page) for page in range(memory.nr_pages))
        return f"{memory.nr_pages} {nr_wrong}"
    page = int(question[1])
    began_ns = time.monotonic_ns()
    content = memory.read(page)
    took_ns = time.monotonic_ns() - began_ns
    right = "right" if content == expected(page) else "wrong"
    (word,) = struct.unpack_from("=Q", content)
    return f"{word:016x} {right} {took_ns} {answers}"


if __name__ == "__main__":
    main()
