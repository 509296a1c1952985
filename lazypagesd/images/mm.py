"""mm-PID.img: the mappings of a process, and which of them can be lazy.

Whoever restores registers with userfaultfd every VMA that can be lazy, all of it, and only those;
so this must be decided as CRIU decides it, from the flags that a VMA had when it was dumped.
"""

from __future__ import annotations

import enum
import mmap
from collections.abc import Iterable
from dataclasses import dataclass

from lazypagesd.errors import ImageError
from lazypagesd.images import wire
from lazypagesd.images.directory import ImageDirectory
from lazypagesd.images.framing import Framing, ImageFile, Magic

PAGE_SIZE = mmap.PAGESIZE
# The end of user addresses on x86-64 with four levels of page tables: the last page is nobody's.
ADDR_LIMIT = (1 << 47) - PAGE_SIZE

MAP_PRIVATE = 0x02
MAP_ANONYMOUS = 0x20
MAP_LOCKED = 0x2000
MAP_HUGETLB = 0x40000


class VmaStatus(enum.IntFlag):
    """What kind of mapping a VMA is: those of CRIU's bits that decide something here."""

    VSYSCALL = 1 << 2
    VDSO = 1 << 3
    VVAR = 1 << 12
    GUARD = 1 << 16  # no VMA at all: guard pages within one, listed after the VMAs


SPECIAL = VmaStatus.VSYSCALL | VmaStatus.VDSO | VmaStatus.VVAR | VmaStatus.GUARD


@dataclass(frozen=True, slots=True)
class Vma:
    """A mapping as mm-PID.img has it.

    *prot* is of PROT_*, *flags* of MAP_*, *status* of `VmaStatus`; bit n of *madv* is madvise(n).
    """

    start: int
    end: int
    prot: int
    flags: int
    status: int
    madv: int = 0

    @property
    def lazy(self) -> bool:
        """Whether it can be filled later: private anonymous memory, neither locked nor huge."""
        kind = MAP_PRIVATE | MAP_ANONYMOUS
        never = MAP_LOCKED | MAP_HUGETLB
        return self.flags & (kind | never) == kind and not self.status & SPECIAL


def load_vmas(directory: ImageDirectory, framing: Framing, pid: int) -> tuple[Vma, ...]:
    """Return the mappings of process *pid* in the file's order: by address, guards at the end."""
    with ImageFile(directory, f"mm-{pid}.img") as image:
        image.read_magic(Magic.MM, framing)
        offset, payload = image.read_only_record()
        entry = wire.parse(wire.mm_entry, payload, image.name, offset)
        vmas = tuple(
            Vma(vma.start, vma.end, vma.prot, vma.flags, vma.status, vma.madv)
            for vma in entry.vmas
        )
        if not vmas:
            what = "no mapping in it: written by a CRIU too old to be served"
            raise ImageError(image.name, what, offset=offset)
        _check(vmas, image.name, offset)
    return vmas


def _check(vmas: Iterable[Vma], name: str, offset: int) -> None:
    end = 0
    for vma in vmas:
        if fault := _fault(vma, end):
            what = f"VMA {vma.start:#x}-{vma.end:#x} {fault}"
            raise ImageError(name, what, offset=offset)
        if not vma.status & VmaStatus.GUARD:
            end = vma.end


def _fault(vma: Vma, end: int) -> str | None:
    if vma.start % PAGE_SIZE or vma.end % PAGE_SIZE:
        return "is not aligned to pages"
    if vma.start >= vma.end:
        return "ends before it starts"
    # The vsyscall page is the kernel's, and lies in its half.
    if vma.end > ADDR_LIMIT and not vma.status & VmaStatus.VSYSCALL:
        return f"runs past the user's addresses ({ADDR_LIMIT:#x})"
    if vma.start < end and not vma.status & VmaStatus.GUARD:
        return f"begins before the one before it ends ({end:#x})"
    return None
