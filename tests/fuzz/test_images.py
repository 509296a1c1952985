"""Image directories of which anything was changed: loaded right, or refused by name."""

from __future__ import annotations

import dataclasses
import errno
import os
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings

from lazypagesd.engine.state import State
from lazypagesd.errors import ImageError, LazyPagesError
from lazypagesd.images.checkpoint import Checkpoint
from lazypagesd.images.entries import CHUNK
from lazypagesd.images.framing import RECORD_MAX
from lazypagesd.images.pagemap import PageMap
from lazypagesd.native import ffi
from lazypagesd.sources.file import FileSource
from tests.fuzz.reading import check_page_map
from tests.fuzz.trees import File, Tree, trees, valid_trees, write_tree
from tests.images.loading import load

# What a few small files may cost: one piece of a pagemap, and some objects.
ALLOWANCE = CHUNK + (1 << 20)


def nr_fds() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (no Path for each)


def check_accepted(top: Path, checkpoint: Checkpoint) -> None:
    """Assert that *checkpoint* can be served, and rightly."""
    live = [task.pid for task in checkpoint.tasks if not task.zombie]
    assert sorted(checkpoint.page_maps) == sorted(live)
    for pid, page_map in checkpoint.page_maps.items():
        check_page_map(top, pid, page_map)
        serve(page_map)


def serve(page_map: PageMap) -> None:
    """Do what a hand-off does with a page map before anything is filled."""
    sources = [FileSource.of(file.fd, file.name) for file in page_map.sources]
    regions = page_map.regions, page_map.nr_regions, page_map.nr_pages
    State.create("fuzz", *regions, len(sources)).close()


def check_refused(top: Path, error: LazyPagesError | OSError) -> None:
    """Assert that *error* leads to the file, and to a byte in it if it names one."""
    if isinstance(error, OSError):
        assert (error.errno, bool(error.filename)) == (errno.ELOOP, True), error
        return
    assert isinstance(error, ImageError), error
    assert str(error).startswith(error.file)
    assert error.file.endswith((".img", "parent"))
    if error.offset is not None:
        assert 0 <= error.offset <= (top / error.file).stat().st_size


def load_counted(top: Path, allowance: int) -> Checkpoint:
    """Load *top*, and assert that it takes no more than *allowance* of memory."""
    tracemalloc.start()
    try:
        return load(top)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= allowance


def allowance_of(tree: Tree) -> int:
    """Return what loading *tree* may cost: a hole may be one record, of what a record can be."""
    hole = any(isinstance(node, File) and node.hole for node in tree.values())
    return ALLOWANCE + RECORD_MAX * hole


@settings(deadline=None, max_examples=300)
@given(trees())
def test_changed_images_load_right_or_are_refused(tree: Tree) -> None:
    """Every lazy page is found where a slow reader finds it, or an error names the file.

    Either way nothing stays open, and small files cost little memory, whatever they claim.
    """
    before = nr_fds()
    with tempfile.TemporaryDirectory() as name:
        top = write_tree(Path(name), tree)
        try:
            with load_counted(top, allowance_of(tree)) as checkpoint:
                check_accepted(top, checkpoint)
        except (LazyPagesError, OSError) as error:
            check_refused(top, error)
    assert nr_fds() == before


@pytest.mark.parametrize("number", range(len(valid_trees())))
def test_unchanged_images_load(tmp_path: Path, number: int) -> None:
    """What the changes begin with is accepted by both readers, and has pages."""
    top = write_tree(tmp_path, valid_trees()[number])
    with load(top) as checkpoint:
        check_accepted(top, checkpoint)
        assert checkpoint.nr_pages


@pytest.mark.parametrize("field", ["start", "offset", "first_bit", "nr_pages", "source"])
def test_slow_reader_finds_a_wrong_region(tmp_path: Path, field: str) -> None:
    """A region of which anything is wrong is found out: the tests above can fail."""
    top = write_tree(tmp_path, valid_trees()[2])
    with load(top) as checkpoint:
        page_map = checkpoint.page_map(7)
        wrong = ffi.new("struct lpd_region[]", page_map.nr_regions)
        size = ffi.sizeof(wrong)
        ffi.buffer(wrong, size)[:] = bytes(ffi.buffer(page_map.regions, size))
        step = 4096 if field in ("start", "offset") else 1
        setattr(wrong[1], field, getattr(wrong[1], field) + step)
        with pytest.raises(AssertionError):
            check_page_map(top, 7, dataclasses.replace(page_map, regions=wrong))
