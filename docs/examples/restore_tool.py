"""A whole restore tool in Python.

    restore_tool.py /run/lazypagesd/handoff.socket SNAPSHOT | cmp - SNAPSHOT

SNAPSHOT is the memory of a process, page after page.  A child gets it back while it already runs:
``lazypagesd serve`` fills each page when it is touched, and then the rest.  All that the child
does with its memory is to write it to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from lazypagesd.client import Refused, Region, Restore

PAGE_SIZE = 4096

# asm/unistd_64.h, of x86-64
SYS_USERFAULTFD = 323
# linux/userfaultfd.h
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFD_API = 0xAA
EVENT_FORK, EVENT_REMAP, EVENT_REMOVE, EVENT_UNMAP = 1 << 1, 1 << 2, 1 << 3, 1 << 6
REGISTER_MODE_MISSING = 1 << 0

# What the child tells the parent beside its userfaultfd: where its memory is.
ADDRESS = struct.Struct("=Q")


def main() -> int:
    """Restore a child from a snapshot; return the exit code."""
    parser = argparse.ArgumentParser(description="Restore a child's memory lazily, and print it.")
    parser.add_argument("socket", type=Path, help="the daemon's handoff.socket")
    parser.add_argument("snapshot", type=Path, help="the memory, page after page")
    options = parser.parse_args()
    try:
        with options.snapshot.open("rb") as snapshot:
            return restore_child(options.socket, snapshot)
    except Refused as refused:
        for reason in refused.reasons:
            print(f"restore_tool: refused: {reason}", file=sys.stderr)
    except OSError as error:
        print(f"restore_tool: {error}", file=sys.stderr)
    return 1


# ---- the parent: the restore tool ----


def restore_child(path: Path, snapshot: BinaryIO) -> int:
    """Restore a child from *snapshot*; return its exit code."""
    # A page that is not there as a whole is the daemon's to refuse.
    nr_pages = -(-os.fstat(snapshot.fileno()).st_size // PAGE_SIZE)
    parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        parent_end.close()
        be_restored(child_end, nr_pages * PAGE_SIZE)
    child_end.close()
    with parent_end:
        try:
            hand_over(path, snapshot, nr_pages, pid, parent_end)
        except BaseException:
            # Not all of its memory is right, or will be.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def hand_over(
    path: Path, snapshot: BinaryIO, nr_pages: int, pid: int, child: socket.socket
) -> None:
    """Hand the memory of the child over, and let it run; return when it needs us no more."""
    with Restore.open("restore_tool", path) as restore:
        # While any copy is open, a page that nobody fills is waited for: so close it in time.
        with received_memory(child) as (userfaultfd, addr), opened_pidfd(pid) as pidfd:
            restore.add_session(
                userfaultfd,
                regions=[Region(addr, nr_pages, offset=0)],
                files=[snapshot.fileno()],
                pidfd=pidfd,
            )
        # The child could run from here on.  It begins one step later, so that when we die, it
        # either has not begun or is served without us.
        restore.finished()
        child.send(b"\0")
        restore.release()


@contextlib.contextmanager
def received_memory(child: socket.socket) -> Iterator[tuple[int, int]]:
    """Receive the userfaultfd of the child's memory, and its address."""
    data, fds, _, _ = socket.recv_fds(child, ADDRESS.size, 1, socket.MSG_CMSG_CLOEXEC)
    if not fds:
        raise ChildProcessError("the child has ended")
    try:
        yield fds[0], ADDRESS.unpack(data)[0]
    finally:
        os.close(fds[0])


@contextlib.contextmanager
def opened_pidfd(pid: int) -> Iterator[int]:
    """Open a pidfd, by which the daemon sees the end of the process at once."""
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


# ---- the child: what is restored ----


def be_restored(parent: socket.socket, size: int) -> NoReturn:
    """Hand *size* bytes of memory to the parent, print them, and exit."""
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        addr = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        # Only a process itself can make the userfaultfd of its memory.
        userfaultfd = new_userfaultfd(addr, size)
        socket.send_fds(parent, [ADDRESS.pack(addr)], [userfaultfd])
        os.close(userfaultfd)
        # Nothing is touched before the parent says so.  It says nothing where it has failed, or
        # is dead.
        if not parent.recv(1):
            os._exit(1)
        sys.stdout.buffer.write(memory)
        sys.stdout.buffer.flush()
    except (OSError, ValueError) as error:
        print(f"restore_tool: child: {error}", file=sys.stderr)
        os._exit(1)
    # Not by a return: Python would unmap the memory, which waits until the daemon has read of it.
    os._exit(0)


def new_userfaultfd(addr: int, size: int) -> int:
    """Return a userfaultfd that tells of faults in *size* bytes of memory, and of all events.

    The daemon has to know when a process forks, which needs CAP_SYS_PTRACE, or changes its
    mappings.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"userfaultfd: {os.strerror(number)}")
    events = EVENT_FORK | EVENT_REMAP | EVENT_REMOVE | EVENT_UNMAP
    fcntl.ioctl(fd, UFFDIO_API, struct.pack("=3Q", UFFD_API, events, 0))
    fcntl.ioctl(fd, UFFDIO_REGISTER, struct.pack("=4Q", addr, size, REGISTER_MODE_MISSING, 0))
    return fd


if __name__ == "__main__":
    sys.exit(main())
