"""Lazy memory in this very process, where it may have no userfaultfd: channel.h for Python.

    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ...  # a restore tool: restore.add_session(theirs.fileno(), channel=True, ...)
    channel.open(ours.detach())
    channel.register(channel.address(memory), len(memory))

Some facts:

- A process has one channel, and a child that it forks has its own.
- A Python thread that touches missing memory holds the interpreter while it waits; populate() does
  not.  Where that would be a dead end, as for the thread that tells the daemon that a restore has
  finished, populate first.
- A system call that is given missing memory fails with EFAULT, so what is written to a file or a
  socket has to be populated before.
- Whoever sets a handler of SIGSEGV later takes ours away: faulthandler.enable() comes before
  open().
- `mmap.mmap` unmaps its memory when it is closed or forgotten, and the daemon is not told: keep
  it, or munmap() before.

Addresses are numbers, lengths bytes, both multiples of a page.  Every function raises the OSError
that the library met, and may be called from any thread.
"""

from __future__ import annotations

import os

from lazypagesd.client._channel import ffi, lib


def open(fd: int) -> None:
    """Be asked at *fd* which messages there are, and be served from then on.

    Takes ownership of *fd*: one end of a connected SOCK_SEQPACKET socket, whose other end the
    daemon is given, and asks at.  Waits until it has: in add_session() of another thread, or of
    another process.
    """
    check(lib.lpd_channel_open(fd))


def register(addr: int, length: int) -> None:
    """Let private anonymous memory be filled from the daemon; what was in it is lost."""
    check(lib.lpd_channel_register(pointer(addr), length))


def populate(addr: int, length: int) -> None:
    """Wait until all of a range has come, while other threads go on."""
    lib.lpd_channel_populate(pointer(addr), length)


def munmap(addr: int, length: int) -> None:
    """Unmap a range."""
    check(lib.lpd_channel_munmap(pointer(addr), length))


def discard(addr: int, length: int) -> None:
    """Give up the contents of a range, as with MADV_DONTNEED: it is zero from now on."""
    check(lib.lpd_channel_discard(pointer(addr), length))


def mremap(addr: int, length: int, to: int) -> None:
    """Move a range, all of it registered at once, to where it does not overlap with itself.

    EOPNOTSUPP where the daemon cannot be told, with v1.
    """
    check(lib.lpd_channel_mremap(pointer(addr), length, pointer(to)))


def address(memory: object) -> int:
    """Return where the bytes of *memory*, which can be written to, begin."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer("char[]", memory, require_writable=True)))


def pointer(addr: int) -> object:
    """Return an address as C has it."""
    return ffi.cast("void *", addr)


def check(rc: int) -> None:
    """Raise the OSError that a negative return value is."""
    if rc < 0:
        raise OSError(-rc, f"channel: {os.strerror(-rc)}")
