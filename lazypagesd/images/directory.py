"""A directory of image files, reached through a descriptor and never through a path."""

from __future__ import annotations

import os
import stat

from lazypagesd.closing import Closing
from lazypagesd.errors import ImageError

# A fifo must not make open() wait; on a regular file O_NONBLOCK does nothing.
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
DIRECTORY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
PARENT = "parent"
PARENTS_MAX = 256  # each costs a descriptor while it is loaded


class ImageDirectory(Closing):
    """Takes ownership of *fd*.

    *prefix* is what leads to it from the checkpoint: ``parent/`` for each step.
    """

    def __init__(self, fd: int, prefix: str = "") -> None:
        self.fd = fd
        self.prefix = prefix

    def name(self, file: str) -> str:
        """Return *file* as it is shown to people."""
        return self.prefix + file

    def open(self, file: str) -> int:
        """Return a new descriptor of *file* to read from.

        Raises FileNotFoundError if there is none and ImageError if it is no regular file.
        """
        fd = os.open(file, READ_FLAGS, dir_fd=self.fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(self.name(file), "not a regular file")
        return fd

    def has(self, file: str) -> bool:
        """Tell whether *file* is there and not empty."""
        try:
            return os.stat(file, dir_fd=self.fd).st_size > 0
        except FileNotFoundError:
            return False

    def parent(self) -> ImageDirectory | None:
        """Return the directory that the symlink ``parent`` leads to, None without such a link."""
        try:
            fd = os.open(PARENT, DIRECTORY_FLAGS, dir_fd=self.fd)
        except FileNotFoundError:
            self._refuse_dangling()
            return None
        except NotADirectoryError:
            raise ImageError(self.name(PARENT), "not a directory") from None
        return ImageDirectory(fd, f"{self.prefix}{PARENT}/")

    def _refuse_dangling(self) -> None:
        try:
            target = os.readlink(PARENT, dir_fd=self.fd)
        except FileNotFoundError:
            return
        what = f"leads nowhere ({target!r}): put the images that this checkpoint builds on there"
        raise ImageError(self.name(PARENT), what)

    def identity(self) -> tuple[int, int]:
        """Return what tells this directory from all others, whatever it is called."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Close the descriptor; nothing else can be called afterwards."""
        os.close(self.fd)


def parents(top: ImageDirectory) -> list[ImageDirectory]:
    """Return the parent of *top*, its parent and so on, each to be closed by the caller.

    Raises ImageError if the chain is broken, too long or leads back into itself.
    """
    chain: list[ImageDirectory] = []
    try:
        _follow(top, chain)
    except BaseException:
        for directory in chain:
            directory.close()
        raise
    return chain


def _follow(top: ImageDirectory, chain: list[ImageDirectory]) -> None:
    seen = {top.identity()}
    directory = top
    while (parent := directory.parent()) is not None:
        chain.append(parent)
        if len(chain) > PARENTS_MAX:
            what = f"more than {PARENTS_MAX} images build on each other; cannot serve"
            raise ImageError(directory.name(PARENT), what)
        if parent.identity() in seen:
            what = f"leads back to a directory that it came from, after {len(chain)} steps"
            raise ImageError(directory.name(PARENT), what)
        seen.add(parent.identity())
        directory = parent
