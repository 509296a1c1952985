"""pstree.img: the processes of a checkpoint, and which of them are zombies."""

from __future__ import annotations

from dataclasses import dataclass

from lazypagesd.errors import ImageError
from lazypagesd.images import wire
from lazypagesd.images.directory import ImageDirectory
from lazypagesd.images.framing import Framing, ImageFile, Magic

PSTREE = "pstree.img"
PID_MAX = 1 << 22  # the kernel's, on 64 bits
TASK_DEAD = 2  # core_entry.tc.task_state of a zombie


@dataclass(frozen=True, slots=True)
class Task:
    """A process of a checkpoint; *pid* is what it was when dumped, *ppid* of the root 0.

    A zombie has no memory; it only counts at the hand-off.
    """

    pid: int
    ppid: int
    threads: tuple[int, ...]
    zombie: bool = False


def load_tasks(directory: ImageDirectory, framing: Framing) -> tuple[Task, ...]:
    """Return the processes of the checkpoint in *directory*, in the order of the file."""
    tasks: dict[int, Task] = {}
    with ImageFile(directory, PSTREE) as image:
        image.read_magic(Magic.PSTREE, framing)
        for offset, payload in image.records():
            entry = wire.parse(wire.pstree_entry, payload, image.name, offset)
            if not 0 < entry.pid <= PID_MAX:
                raise ImageError(image.name, f"pid {entry.pid} cannot be", offset=offset)
            if entry.pid in tasks:
                raise ImageError(image.name, f"pid {entry.pid} is there twice", offset=offset)
            zombie = _is_zombie(directory, framing, entry.pid)
            tasks[entry.pid] = Task(entry.pid, entry.ppid, tuple(entry.threads), zombie)
        if not tasks:
            raise ImageError(image.name, "no process in it", offset=image.position)
    return tuple(tasks.values())


def _is_zombie(directory: ImageDirectory, framing: Framing, pid: int) -> bool:
    # What has memory is alive; only of what has none must core-N.img be asked.  Where that is
    # missing too, the missing mm-N.img is what will be told.
    files = f"mm-{pid}.img", f"pagemap-{pid}.img"
    if any(directory.has(file) for file in files) or not directory.has(f"core-{pid}.img"):
        return False
    with ImageFile(directory, f"core-{pid}.img") as image:
        image.read_magic(Magic.CORE, framing)
        offset, payload = image.read_only_record()
        core = wire.parse(wire.core_entry, payload, image.name, offset)
    return core.tc.task_state == TASK_DEAD
