"""Loading what a test wrote, and what that raises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lazypagesd.errors import ImageError
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.writer import ImageEntry, ImageTask, anon_vma, write_images

BASE = 0x7F0000000000


def addr(page: int) -> int:
    """Return the address of page *page* of the mapping that most tests have."""
    return BASE + page * PAGE_SIZE


def load(directory: Path) -> Checkpoint:
    """Load the checkpoint in *directory* through a descriptor, as everyone does."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return Checkpoint.open(fd)
    finally:
        os.close(fd)


def refusal(directory: Path) -> ImageError:
    """Return the ImageError that loading *directory* raises."""
    with pytest.raises(ImageError) as caught:
        load(directory)
    return caught.value


def plain_task(pid: int = 7, *, nr_pages: int = 4, pages_id: int = 1) -> ImageTask:
    """Return a process of one mapping, all of it lazy and in its pages file."""
    entries = tuple(ImageEntry(addr(i)) for i in range(nr_pages))
    pages = b"".join(bytes([pid, i]) * (PAGE_SIZE // 2) for i in range(nr_pages))
    return ImageTask(pid, (anon_vma(BASE, nr_pages),), entries, pages, pages_id)


def write_plain(directory: Path) -> None:
    """Write a checkpoint of one plain process."""
    write_images(directory, [plain_task()])
