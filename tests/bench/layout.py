"""The memory of a process: where its pages lie, as memory.h has it, and its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.writer import ImageEntry, ImageTask, anon_vma, write_images
from tests.bench.criu_images import complete

# As in memory.h and toucher.c.
MEMORY_ADDR = 0x200000000000
FIRST_PID = 1000

MIB_PAGES = (1 << 20) // PAGE_SIZE
GIB_PAGES = (1 << 30) // PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Layout:
    """*nr_pages* in runs of *run* pages (0: one run a session), spread over *nr_sessions*.

    Only what the first *nr_written* random touches reach is written to the images (0: all); the
    rest are holes of the file, so that an image can be far larger than what is looked at.
    """

    nr_pages: int
    run: int = 0
    nr_sessions: int = 1
    nr_written: int = 0

    @property
    def session_pages(self) -> int:
        """How many pages a session has."""
        return self.nr_pages // self.nr_sessions

    @property
    def run_pages(self) -> int:
        """How many pages a run has."""
        return self.run or self.session_pages

    @property
    def used_bytes(self) -> int:
        """How much memory it takes to be filled, and a little more, for what maps it."""
        return (self.nr_written or self.nr_pages) * PAGE_SIZE * 5 // 4

    @property
    def words(self) -> list[str]:
        """What the programs are told."""
        written = self.nr_written or self.nr_pages
        return [str(n) for n in (self.nr_pages, self.run_pages, self.nr_sessions, written)]

    @property
    def name(self) -> str:
        """A name for its directory."""
        return "-".join(self.words)

    def addr(self, number: int) -> int:
        """Return the address of a page."""
        return MEMORY_ADDR + (number + number // self.run_pages) * PAGE_SIZE

    def task(self, session: int) -> ImageTask:
        """Return a session as a process in the images, whose pages are still to be written."""
        first, end = session * self.session_pages, (session + 1) * self.session_pages
        start, run, pid = self.addr(first), self.run_pages, FIRST_PID + session
        return ImageTask(
            pid,
            (anon_vma(start, (self.addr(end) - start) // PAGE_SIZE),),
            tuple(ImageEntry(self.addr(i), nr_pages=run) for i in range(first, end, run)),
            pages_id=pid,
            ppid=FIRST_PID if session else 0,
        )

    def write(self, directory: Path) -> None:
        """Write all images but the pages files, which toucher.c writes."""
        tasks = [self.task(session) for session in range(self.nr_sessions)]
        write_images(directory, tasks)
        for task in tasks:
            complete(directory, task)
