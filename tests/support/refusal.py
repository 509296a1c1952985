"""Fills that the kernel refuses when it is told to: a thread whose ioctls are asked about first.

Some facts (man 2 seccomp_unotify): a filter binds the thread that installs it; a call that it
answers with SECCOMP_RET_USER_NOTIF waits until whoever holds the listener has answered, either
with an errno of its choice, or to let the call go on. So the call is a real one, at its real
place, and each is refused or not by itself.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import queue
import select
import struct
import threading
from collections.abc import Callable

from lazypagesd.closing import Closing

# asm/unistd_64.h and asm-generic/unistd.h: seccomp, ioctl
SYSCALLS = {"x86_64": (317, 16), "aarch64": (277, 29)}

# linux/userfaultfd.h: UFFDIO_COPY, UFFDIO_ZEROPAGE
FILLS = (0xC028AA03, 0xC020AA04)

# linux/prctl.h, linux/seccomp.h
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
NOTIF_SIZE = 80
RESPONSE = struct.Struct("=QqiI")

# linux/filter.h: code, where to jump if true, if false, operand. Offsets into struct seccomp_data.
INSTRUCTION = struct.Struct("=HBBI")
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER_OFFSET, REQUEST_OFFSET = 0, 24


class Refusal(Closing):
    """Answers the fills of the threads that it has run(): ENOMEM from set_in() to lift()."""

    def __init__(self) -> None:
        """Refuse nothing yet."""
        self.nr_refused = 0
        self._refusing = False
        self._listeners: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="refusal", daemon=True)
        self._thread.start()

    def set_in(self) -> None:
        """Refuse every fill from now on."""
        self._refusing = True

    def lift(self) -> None:
        """Let every fill go on."""
        self._refusing = False

    def run(self, function: Callable[[], int]) -> int:
        """Run *function* in this thread, which can fill nothing by itself any more."""
        listener = listen_to_fills()
        self._listeners.put(listener)
        result = function()
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(listener)
        return result

    def close(self) -> None:
        """Give up its descriptor; what it ran must have ended."""
        self._listeners.put(None)
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)

    def _serve(self) -> None:
        listener = self._listeners.get()
        while listener is not None:
            ready, _, _ = select.select([listener, self._stop], [], [])
            if self._stop in ready:
                return
            self._answer(listener)

    def _answer(self, listener: int) -> None:
        request = bytearray(NOTIF_SIZE)
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, request)
        [number] = struct.unpack_from("=Q", request)
        answer = RESPONSE.pack(number, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE)
        if self._refusing:
            self.nr_refused += 1
            answer = RESPONSE.pack(number, 0, -errno.ENOMEM, 0)
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer)


def listen_to_fills() -> int:
    """Let every fill of this thread wait for an answer; return the descriptor to give it at."""
    seccomp, ioctl = SYSCALLS[platform.machine()]
    program = b"".join(
        INSTRUCTION.pack(*instruction)
        for instruction in (
            (LOAD, 0, 0, NUMBER_OFFSET),
            (JUMP_IF_EQUAL, 0, 3, ioctl),
            (LOAD, 0, 0, REQUEST_OFFSET),
            (JUMP_IF_EQUAL, 2, 0, FILLS[0]),
            (JUMP_IF_EQUAL, 1, 0, FILLS[1]),
            (RETURN, 0, 0, SECCOMP_RET_ALLOW),
            (RETURN, 0, 0, SECCOMP_RET_USER_NOTIF),
        )
    )
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog; the buffer above outlives the call.
    head = struct.pack("@HP", len(program) // INSTRUCTION.size, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener: int = libc.syscall(
        seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, head
    )
    if listener < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp(2): {os.strerror(code)}")
    return listener
