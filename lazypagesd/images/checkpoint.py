"""A checkpoint: one image directory and its parents, loaded and checked as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType

from lazypagesd.closing import Closing
from lazypagesd.errors import ImageError
from lazypagesd.images.directory import ImageDirectory, parents
from lazypagesd.images.entries import Entries, load_entries
from lazypagesd.images.framing import Framing
from lazypagesd.images.inventory import load_framing, load_parent_framing
from lazypagesd.images.mm import load_vmas
from lazypagesd.images.pagemap import PageMap, flatten
from lazypagesd.images.pages import PagesFile, open_pages
from lazypagesd.images.pstree import Task, load_tasks


class Checkpoint(Closing):
    """The processes of a checkpoint and the page map of each; owns the pages files.

    Made by `open`.  Immutable, and usable from any thread until it is closed.
    """

    def __init__(
        self, tasks: tuple[Task, ...], page_maps: Mapping[int, PageMap], pages: ExitStack
    ) -> None:
        self.tasks = tasks
        self.page_maps = MappingProxyType(dict(page_maps))
        self._pages = pages

    @classmethod
    def open(cls, dir_fd: int) -> Checkpoint:
        """Load the checkpoint in the directory *dir_fd*.

        The descriptor stays the caller's, and is not needed afterwards.  Raises ImageError if
        any byte of the checkpoint could not be served.
        """
        with ExitStack() as directories, ExitStack() as pages:
            loader = _Loader(dir_fd, directories, pages)
            page_maps = {
                task.pid: loader.load(task.pid) for task in loader.tasks if not task.zombie
            }
            return cls(loader.tasks, page_maps, pages.pop_all())

    def page_map(self, pid: int) -> PageMap:
        """Return the page map of process *pid*; KeyError if there is none, or it is a zombie."""
        return self.page_maps[pid]

    @property
    def nr_pages(self) -> int:
        """How many pages can be lazy, in all processes together."""
        return sum(page_map.nr_pages for page_map in self.page_maps.values())

    def close(self) -> None:
        """Close the pages files; closing twice does nothing."""
        self._pages.close()


class _Level:
    # One directory of the chain, and those of its pages files that were opened so far.
    def __init__(self, directory: ImageDirectory, framing: Framing, opened: ExitStack) -> None:
        self.directory = directory
        self.framing = framing
        self._opened = opened
        self._pages: dict[int, PagesFile] = {}

    def pages(self, entries: Entries) -> PagesFile:
        file = self._pages.get(entries.pages_id)
        if file is None:
            file = open_pages(self.directory, entries.pages_id)
            self._opened.callback(file.close)
            self._pages[entries.pages_id] = file
        if file.size < entries.pages_size:
            what = f"shorter than {entries.name} says ({file.size} of {entries.pages_size} bytes)"
            raise ImageError(file.name, f"{what}: the file was cut off", offset=file.size)
        return file


class _Loader:
    # The chain of directories, for as long as processes are loaded from it.
    def __init__(self, dir_fd: int, directories: ExitStack, pages: ExitStack) -> None:
        top = directories.enter_context(ImageDirectory(os.dup(dir_fd)))
        framing = load_framing(top)
        self.levels = [_Level(top, framing, pages)]
        chain = parents(top)
        for parent in chain:
            directories.enter_context(parent)
        for parent in chain:
            framing = load_parent_framing(parent, framing)
            self.levels.append(_Level(parent, framing, pages))
        self.tasks = load_tasks(top, self.levels[0].framing)

    def load(self, pid: int) -> PageMap:
        vmas = load_vmas(self.levels[0].directory, self.levels[0].framing, pid)
        levels = self._levels_of(pid)
        entries = [load_entries(level.directory, level.framing, pid) for level in levels]
        sources = tuple(level.pages(e) for level, e in zip(levels, entries, strict=True))
        return flatten(entries, vmas, sources)

    def _levels_of(self, pid: int) -> list[_Level]:
        # A process is in its parents as far up as each has a pagemap of it.
        count = 1
        while count < len(self.levels) and self.levels[count].directory.has(f"pagemap-{pid}.img"):
            count += 1
        return self.levels[:count]
