"""Checkpoint and restore of our own, for want of CRIU: the victim's memory and nothing else.

The image files are CRIU's, and the hand-off is what CRIU's restored processes do (hand_over.c);
the little that the process is besides its memory goes by its command line.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lazypagesd.demo import victim as victims
from lazypagesd.demo.checkpoints import Checkpoints, Place
from lazypagesd.demo.trouble import Trouble
from lazypagesd.demo.victim import MEMORY_ADDR, PAGE_SIZE, Victim
from lazypagesd.images.writer import ImageEntry, ImageTask, anon_vma, write_images

_CHUNK_PAGES = 256  # CRIU's dump cuts entries at the size of a pipe


class BuiltinCheckpoints(Checkpoints):
    """Good for the demo's victim, and for no other process."""

    name = "the demo's own checkpoint"

    def __init__(self) -> None:
        self._answers = 0
        self._dumped_pid = 0

    def checkpoint(self, victim: Victim, place: Place) -> None:
        """Copy the memory out while the process is stopped, then kill it."""
        with victim.connect() as connection:
            self._answers = connection.get(0).number - 1  # this one does not count
        os.kill(victim.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WNOWAIT)
        _write(victim, place.images)
        os.kill(victim.pid, signal.SIGKILL)
        os.waitpid(victim.pid, 0)
        self._dumped_pid = victim.pid

    def restore(self, victim: Victim, place: Place) -> Victim:
        """Start a new victim whose memory the daemon brings; it has another pid."""
        process = victims.spawn(
            victim.program,
            victim.directory,
            victim.socket,
            victim.nr_pages,
            self._answers,
            place.work,
            self._dumped_pid,
        )
        try:
            victims.wait_until_it_listens(process, victim.socket)
        except Trouble as trouble:
            log = (victim.directory / "victim.log").read_text()
            raise Trouble(_explain(log) or f"{trouble}: {log}") from trouble
        return Victim(
            victim.program, victim.directory, process.pid, victim.socket, victim.nr_pages
        )


def _write(victim: Victim, images: Path) -> None:
    # write_images() would want all of the memory in ours.
    entries = tuple(
        ImageEntry(
            MEMORY_ADDR + page * PAGE_SIZE, nr_pages=min(_CHUNK_PAGES, victim.nr_pages - page)
        )
        for page in range(0, victim.nr_pages, _CHUNK_PAGES)
    )
    vmas = (anon_vma(MEMORY_ADDR, victim.nr_pages),)
    task = ImageTask(victim.pid, vmas, entries, pages_id=1)
    write_images(images, [task])
    memory_path, pages_path = Path(f"/proc/{victim.pid}/mem"), images / "pages-1.img"
    with memory_path.open("rb", buffering=0) as memory, pages_path.open("wb") as pages:
        for entry in entries:
            pages.write(os.pread(memory.fileno(), entry.nr_pages * PAGE_SIZE, entry.vaddr))


def _explain(log: str) -> str | None:
    if "userfaultfd" not in log:
        return None
    return (
        f"no userfaultfd with a fork event for this user ({log.strip()}): run the demo as root, "
        "or with CAP_SYS_PTRACE and either /dev/userfaultfd or vm.unprivileged_userfaultfd=1"
    )
