"""Image directories from plain values: what tests load, and the demo's checkpoint.

Writes what this package reads, no more: enough to be served, not to be restored by CRIU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from lazypagesd.images import wire
from lazypagesd.images.framing import HEAD_MAGIC, U32, Framing, Magic
from lazypagesd.images.inventory import INVENTORY
from lazypagesd.images.mm import MAP_ANONYMOUS, MAP_PRIVATE, PAGE_SIZE, Vma
from lazypagesd.images.pstree import PSTREE, TASK_DEAD
from lazypagesd.native import lib

PARENT = lib.LPD_ENTRY_PARENT
LAZY = lib.LPD_ENTRY_LAZY
PRESENT = lib.LPD_ENTRY_PRESENT

REGULAR_ANON_PRIVATE = 1 << 0 | 1 << 9  # vma_entry.status
READ_WRITE = 3  # PROT_*


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """A pagemap entry; by default one whose page is here and can be lazy."""

    vaddr: int
    nr_pages: int = 1
    flags: int = LAZY | PRESENT


@dataclass(frozen=True, slots=True)
class ImageTask:
    """A process to write; *pages* are the bytes of its PRESENT entries, one after the other."""

    pid: int
    vmas: tuple[Vma, ...] = ()
    entries: tuple[ImageEntry, ...] = ()
    pages: bytes = b""
    pages_id: int = 1
    ppid: int = 0
    threads: tuple[int, ...] = ()
    zombie: bool = False


def anon_vma(start: int, nr_pages: int) -> Vma:
    """Return the mapping that mmap(MAP_PRIVATE | MAP_ANONYMOUS) makes."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS
    return Vma(start, start + nr_pages * PAGE_SIZE, READ_WRITE, flags, REGULAR_ANON_PRIVATE)


def frame(magic: Magic, messages: Iterable[Message], framing: Framing = Framing.V1_1) -> bytes:
    """Return an image file of type *magic* that holds *messages*."""
    head = framing is Framing.V1_1 and magic is not Magic.INVENTORY
    words = (HEAD_MAGIC, magic) if head else (magic,)
    payloads = [message.SerializeToString() for message in messages]
    records = [U32.pack(len(payload)) + payload for payload in payloads]
    return b"".join([*map(U32.pack, words), *records])


def write_images(
    directory: Path,
    tasks: Iterable[ImageTask],
    *,
    framing: Framing = Framing.V1_1,
    parent: str | None = None,
) -> None:
    """Write a checkpoint of *tasks* to *directory*, which is made if it is not there.

    *parent* is where its ``parent`` link leads, seen from *directory*.
    """
    tasks = tuple(tasks)
    directory.mkdir(parents=True, exist_ok=True)
    inventory = wire.inventory_entry(img_version=framing, fdinfo_per_id=True)
    (directory / INVENTORY).write_bytes(frame(Magic.INVENTORY, [inventory]))
    (directory / PSTREE).write_bytes(frame(Magic.PSTREE, map(_pstree_entry, tasks), framing))
    for task in tasks:
        _write_task(directory, task, framing)
    if parent is not None:
        (directory / "parent").symlink_to(parent)


def _write_task(directory: Path, task: ImageTask, framing: Framing) -> None:
    if task.zombie:
        core = wire.core_entry(tc=wire.task_core_entry(task_state=TASK_DEAD))
        (directory / f"core-{task.pid}.img").write_bytes(frame(Magic.CORE, [core], framing))
        return
    mm = wire.mm_entry(vmas=map(_vma_entry, task.vmas))
    (directory / f"mm-{task.pid}.img").write_bytes(frame(Magic.MM, [mm], framing))
    pagemap = [wire.pagemap_head(pages_id=task.pages_id), *map(_pagemap_entry, task.entries)]
    (directory / f"pagemap-{task.pid}.img").write_bytes(frame(Magic.PAGEMAP, pagemap, framing))
    (directory / f"pages-{task.pages_id}.img").write_bytes(task.pages)


def _pstree_entry(task: ImageTask) -> wire.pstree_entry:
    threads = task.threads or (task.pid,)
    return wire.pstree_entry(
        pid=task.pid, ppid=task.ppid, pgid=task.pid, sid=task.pid, threads=threads
    )


def _vma_entry(vma: Vma) -> wire.vma_entry:
    return wire.vma_entry(
        start=vma.start,
        end=vma.end,
        prot=vma.prot,
        flags=vma.flags,
        status=vma.status,
        madv=vma.madv,
    )


def _pagemap_entry(entry: ImageEntry) -> wire.pagemap_entry:
    # As CRIU 4 writes it: the count in the new field, and 0 in the old one.
    return wire.pagemap_entry(
        vaddr=entry.vaddr, compat_nr_pages=0, flags=entry.flags, nr_pages=entry.nr_pages
    )
