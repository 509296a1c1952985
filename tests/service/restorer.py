"""What a test says to restorer.c, and the images that it is restored from."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.writer import ImageEntry, ImageTask, anon_vma, write_images

DEADLINE_S = 20.0

# As in restorer.c.
MEMORY_ADDR = 0x200000000000
MEMORY_SHIFT = 32


def page_addr(pid: int, index: int) -> int:
    """Return where page *index* of process *pid* lies."""
    return MEMORY_ADDR + (pid << MEMORY_SHIFT) + index * PAGE_SIZE


def page_bytes(pid: int, index: int) -> bytes:
    """Return what restorer.c takes to be right."""
    return (pid << 32 | index + 1).to_bytes(8, "little") * (PAGE_SIZE // 8)


def task(pid: int, nr_pages: int) -> ImageTask:
    """Return a process all of whose pages are lazy, in a pages file of its own."""
    return ImageTask(
        pid,
        (anon_vma(page_addr(pid, 0), nr_pages),) if nr_pages else (),
        (ImageEntry(page_addr(pid, 0), nr_pages=nr_pages),) if nr_pages else (),
        b"".join(page_bytes(pid, index) for index in range(nr_pages)),
        pages_id=pid,
    )


def write_checkpoint(directory: Path, processes: dict[int, int], zombies: set[int]) -> None:
    """Write a checkpoint of *processes*, by pid with their numbers of pages, and *zombies*."""
    tasks = [task(pid, nr_pages) for pid, nr_pages in processes.items()]
    write_images(directory, [*tasks, *(ImageTask(pid, zombie=True) for pid in sorted(zombies))])


def compile_restorer(directory: Path) -> Path:
    """Compile restorer.c into *directory*; skip the test where nothing compiles C."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for restorer.c")
    program, source = directory / "restorer", Path(__file__).with_name("restorer.c")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]
    subprocess.run([*command, program, source], check=True, timeout=60)
    return program


class Restorer:
    """A run of restorer.c in the work directory."""

    def __init__(self, program: Path, work: Path) -> None:
        self.process = subprocess.Popen(
            [program],
            cwd=work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._unread = b""
        self._pages: list[str] = []

    def ask(self, command: str) -> str:
        """Return the answer to *command*."""
        self._say(command)
        while (line := self._line(DEADLINE_S)).startswith("page "):
            self._pages.append(line)
        return line

    def do(self, *commands: str) -> None:
        """Do *commands*, each of which works."""
        for command in commands:
            answer = self.ask(command)
            assert answer == "ok", f"{command}: {answer}"

    def take_over(self, pid: int, nr_pages: int) -> None:
        """Send the record of process *pid*, and register its memory as the restored one does."""
        self.do(f"pid {pid}", f"descriptor {pid}", f"register {pid} {nr_pages}")

    def begin_read(self, pid: int, index: int) -> None:
        """Let a thread read a page; page() has what it found."""
        self._say(f"read {pid} {index}")

    def page(self, deadline_s: float = DEADLINE_S) -> str:
        """Return the next page that was read, as ``PID INDEX VERDICT``."""
        line = self._pages.pop(0) if self._pages else self._line(deadline_s)
        assert line.startswith("page "), line
        return line.removeprefix("page ")

    def read(self, pid: int, index: int) -> str:
        """Read a page, and return what it was like."""
        self.begin_read(pid, index)
        asked, verdict = self.page().rsplit(" ", 1)
        assert asked == f"{pid} {index}"
        return verdict

    def waits(self, seconds: float = 0.3) -> bool:
        """Say whether no page has been read, nor is within some time."""
        return not self._pages and not self._readable(seconds)

    def check(self, pid: int, nr_pages: int) -> None:
        """See that every page is right."""
        answer = self.ask(f"check {pid} {nr_pages}")
        assert answer == f"{nr_pages} of {nr_pages} right", answer

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """Kill it, and close its pipes."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())

    def _readable(self, seconds: float) -> bool:
        return bool(self._unread) or bool(select.select([self.process.stdout], [], [], seconds)[0])

    def _line(self, deadline_s: float) -> str:
        assert self.process.stdout is not None
        end = time.monotonic() + deadline_s
        while b"\n" not in self._unread:
            readable, _, _ = select.select(
                [self.process.stdout], [], [], max(0, end - time.monotonic())
            )
            assert readable, f"the restorer says nothing for {deadline_s:g} s"
            data = os.read(self.process.stdout.fileno(), 4096)
            assert data, "the restorer has ended"
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()
