"""The victim of victim.c as a Python object: it is told what to do, and says how that went."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from lazypagesd.images.mm import PAGE_SIZE

# Of a hang: much longer than anything takes on a machine that is busy.
DEADLINE_S = 45.0

HERE = Path(__file__).parent
# The library that a program is compiled with to use a channel.
CLIENT = HERE.parents[1] / "lazypagesd/client"

# The answer of victim.c, and its greeting.
HEAD = struct.Struct("qQ")
PID = struct.Struct("q")

# linux/mman.h, where Python's mmap has no name for it
MREMAP_MAYMOVE = 1
MREMAP_FIXED = 2
MREMAP_DONTUNMAP = 4

# enum of victim_hammer.c
HAMMER_DONTNEED = 1
HAMMER_MREMAP = 2
HAMMER_MPROTECT = 3


@pytest.fixture(scope="session")
def victim_program(tmp_path_factory: pytest.TempPathFactory, userfaultfd_allowed: None) -> Path:
    """Compile the victim; skip where its descriptor could not tell of forks."""
    sources = [*HERE.glob("victim*.c"), CLIENT / "channel_all.c"]
    program = build(tmp_path_factory.mktemp("victim") / "victim", *sources)
    with Family(program, program.parent) as family:
        try:
            family.start().open()
        except PermissionError:
            pytest.skip("UFFD_FEATURE_EVENT_FORK: needs CAP_SYS_PTRACE")
    return program


@pytest.fixture(scope="session")
def confine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile what runs a program without userfaultfd."""
    return build(tmp_path_factory.mktemp("confine") / "confine", HERE / "confine.c")


def build(program: Path, *sources: Path) -> Path:
    """Compile *program*; skip without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the victim")
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command: list[str | Path] = [compiler, *options, "-I", CLIENT, "-o", program, *sources]
    subprocess.run(command, check=True, timeout=60)
    return program


class Family:
    """A victim and the processes that it forks: all of them end with the block."""

    def __init__(
        self, program: Path, directory: Path, *, prefix: Sequence[str | Path] = ()
    ) -> None:
        self._command = [*prefix, program]
        self.path = directory / f"victim-{id(self):x}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._process: subprocess.Popen[bytes] | None = None
        self.members: list[Victim] = []

    def __enter__(self) -> Self:
        self._listener.bind(os.fspath(self.path))
        self._listener.listen(128)
        self._listener.settimeout(DEADLINE_S)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            # Those that it forked are in its process group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(DEADLINE_S)
        for victim in self.members:
            victim.close()
        self._listener.close()
        self.path.unlink()

    def start(self) -> Victim:
        """Start the first of the family."""
        self._process = subprocess.Popen([*self._command, self.path], start_new_session=True)
        return self.accept()

    def accept(self) -> Victim:
        """Wait for the next one to introduce itself."""
        connection, _ = self._listener.accept()
        connection.settimeout(DEADLINE_S)
        victim = Victim(self, connection)
        self.members.append(victim)
        return victim

    def reap(self) -> None:
        """Wait until the first of the family has ended."""
        assert self._process is not None
        self._process.wait(DEADLINE_S)


class Victim:
    """One process. Its methods wait for the answer in a thread, so that an engine in this loop can
    fill what the process needs to give one."""

    def __init__(self, family: Family, connection: socket.socket) -> None:
        self.family = family
        self._socket = connection
        [self.pid] = PID.unpack(self._receive(PID.size))
        self.uffd = -1

    def open(self, features: int = 0) -> None:
        """Let it open a userfaultfd with all events and further *features*; *uffd* is its number
        over there."""
        self.uffd = self.call("open", features)

    def close(self) -> None:
        """Let go of it, at which it exits."""
        self._socket.close()

    def hand_over(self) -> int:
        """Take over its userfaultfd, of which it keeps no copy."""
        self._send("handover")
        _, fds, _, _ = socket.recv_fds(self._socket, 1, 1)
        os.set_inheritable(fds[0], False)
        self._answer("handover")
        return fds[0]

    def call(self, command: str, *args: int) -> int:
        """Give a command and return its result.  Raises the OSError that it met."""
        self._send(command, *args)
        return self._answer(command)[0]

    async def do(self, command: str, *args: int) -> int:
        """Do the same without holding up the loop."""
        return await asyncio.to_thread(self.call, command, *args)

    async def read(self, addr: int, nr_pages: int = 1) -> bytes:
        """Return *nr_pages* pages as the process sees them."""
        self._send("read", addr, nr_pages * PAGE_SIZE)
        return await self._bytes("read")

    async def write(self, addr: int, byte: int, nr_pages: int = 1) -> None:
        """Set each byte of *nr_pages* pages to *byte*."""
        await self.do("write", addr, nr_pages * PAGE_SIZE, byte)

    def begin_reading(
        self, addr: int, nr_pages: int = 1, *, nr_threads: int = 1, step_pages: int = 0
    ) -> None:
        """Let threads read while other commands are given; each begins *step_pages* further on."""
        self.call("begin", addr, nr_pages * PAGE_SIZE, nr_threads, step_pages * PAGE_SIZE)

    async def end_reading(self) -> bytes:
        """Return what those threads have read, one thread's bytes after the other's."""
        self._send("end")
        return await self._bytes("end")

    async def fork(self) -> Victim:
        """Return a new child of the process."""
        pid = await self.do("fork")
        child = await self.accept()
        assert child.pid == pid
        return child

    async def accept(self) -> Victim:
        """Return the next that introduces itself, of the whole family."""
        return await asyncio.to_thread(self.family.accept)

    def begin_aside(self, command: str, *args: int) -> None:
        """Let a thread carry a command out while others are given."""
        self.call(f"aside:{command}", *args)

    async def end_aside(self) -> int:
        """Return the result of that command.  Raises the OSError that it met."""
        return await self.do("rejoin")

    async def munmap(self, addr: int, nr_pages: int) -> None:
        """Unmap pages."""
        await self.do("munmap", addr, nr_pages * PAGE_SIZE)

    async def move(self, addr: int, nr_pages: int, to: int, flags: int = 0) -> None:
        """Move pages to *to*, and drop what is there."""
        flags |= MREMAP_MAYMOVE | MREMAP_FIXED
        size = nr_pages * PAGE_SIZE
        assert await self.do("mremap", addr, size, size, flags, to) == to

    async def grow(self, addr: int, nr_pages: int, new_nr_pages: int) -> int:
        """Make a mapping longer, and return where it lies then."""
        sizes = nr_pages * PAGE_SIZE, new_nr_pages * PAGE_SIZE
        return await self.do("mremap", addr, *sizes, MREMAP_MAYMOVE)

    async def discard(self, addr: int, nr_pages: int, advice: int = mmap.MADV_DONTNEED) -> None:
        """Give up the contents of pages."""
        await self.do("madvise", addr, nr_pages * PAGE_SIZE, advice)

    def exit(self) -> None:
        """Let it exit."""
        self._send("exit")

    def exit_after_fork(self) -> None:
        """Let it fork and exit at once, as one becomes a daemon."""
        self._send("forkexit")

    def begin_forking(self, nr_children: int) -> None:
        """Let it fork, from as many threads at once; it answers no other command any more."""
        self._send("forks", nr_children)

    def kill(self) -> None:
        """Kill it, and none of those that it forked."""
        os.kill(self.pid, signal.SIGKILL)

    def exec(self) -> None:
        """Let it execute another program, which does nothing."""
        self.call("exec")

    def _send(self, command: str, *args: int) -> None:
        self._socket.sendall((" ".join([command, *map(str, args)]) + "\n").encode())

    def _answer(self, command: str) -> tuple[int, bytes]:
        result, length = HEAD.unpack(self._receive(HEAD.size))
        data = self._receive(length)
        if result < 0:
            raise OSError(-result, f"victim {self.pid}: {command}: {os.strerror(-result)}")
        return result, data

    async def _bytes(self, command: str) -> bytes:
        return (await asyncio.to_thread(self._answer, command))[1]

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = self._socket.recv(min(length - len(data), 1 << 20))
            if not piece:
                raise EOFError("the victim has ended")
            data += piece
        return bytes(data)
