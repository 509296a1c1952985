"""pages-N.img: bare pages, in the order of the PRESENT entries of the pagemap that names it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lazypagesd.errors import ImageError
from lazypagesd.images.directory import ImageDirectory


@dataclass(frozen=True, slots=True)
class PagesFile:
    """A pages file open for reading; owns *fd*.

    *name* is as shown to people: from the checkpoint's directory on.
    """

    name: str
    fd: int
    size: int

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def open_pages(directory: ImageDirectory, pages_id: int) -> PagesFile:
    """Open the pages file that pagemaps of *directory* call *pages_id*."""
    file = f"pages-{pages_id}.img"
    name = directory.name(file)
    try:
        fd = directory.open(file)
    except FileNotFoundError:
        what = "missing, though a pagemap names it: is this all of a checkpoint?"
        raise ImageError(name, what) from None
    return PagesFile(name, fd, os.fstat(fd).st_size)
