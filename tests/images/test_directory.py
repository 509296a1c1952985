"""The chain of parents; what is in it is in test_checkpoint.py."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lazypagesd.images import directory
from lazypagesd.images.writer import write_images
from tests.images.loading import load, plain_task, refusal, write_plain


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (no Path for each)


def test_no_parent_link_is_no_parent(tmp_path: Path) -> None:
    """A checkpoint without a parent has one source."""
    write_plain(tmp_path)
    with load(tmp_path) as checkpoint:
        assert [file.name for file in checkpoint.page_map(7).sources] == ["pages-1.img"]


def test_dangling_parent_is_refused(tmp_path: Path) -> None:
    """A link that leads nowhere is not the same as none."""
    write_images(tmp_path, [plain_task()], parent="../gone")
    error = refusal(tmp_path)
    assert error.file == "parent"
    assert "leads nowhere ('../gone')" in error.what


def test_parent_is_refused_when_it_is_a_file(tmp_path: Path) -> None:
    """A parent is a directory."""
    write_images(tmp_path, [plain_task()], parent="pstree.img")
    assert str(refusal(tmp_path)) == "parent: not a directory"


def test_parent_of_itself_is_refused(tmp_path: Path) -> None:
    """A chain that leads back is found, though each of its steps has another name."""
    write_images(tmp_path, [plain_task()], parent=".")
    error = refusal(tmp_path)
    assert error.file == "parent"
    assert "after 1 steps" in error.what


def test_circular_parents_are_refused(tmp_path: Path) -> None:
    """Two images that build on each other are refused where the circle closes."""
    write_images(tmp_path / "a", [plain_task()], parent="../b")
    write_images(tmp_path / "b", [plain_task()], parent="../a")
    error = refusal(tmp_path / "a")
    assert error.file == "parent/parent"
    assert "after 2 steps" in error.what


def test_parents_are_refused_when_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain has a longest length, for each image of it costs a descriptor."""
    monkeypatch.setattr(directory, "PARENTS_MAX", 2)
    for i in range(4):
        write_images(tmp_path / str(i), [plain_task()], parent=f"../{i + 1}" if i < 3 else None)
    error = refusal(tmp_path / "0")
    assert error.file == "parent/parent/parent"
    assert "more than 2 images" in error.what


def test_symlink_to_itself_is_an_oserror(tmp_path: Path) -> None:
    """What the kernel refuses stays an OSError, and leaves no descriptor open."""
    write_images(tmp_path, [plain_task()], parent="parent")
    before = open_descriptors()
    with pytest.raises(OSError, match="parent") as caught:
        load(tmp_path)
    assert caught.value.errno == errno.ELOOP
    assert open_descriptors() == before


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """A closed checkpoint, and one that was refused, leave nothing open."""
    write_images(tmp_path / "old", [plain_task()])
    write_images(tmp_path / "new", [plain_task()], parent="../old")
    before = open_descriptors()
    load(tmp_path / "new").close()
    assert open_descriptors() == before
    os.truncate(tmp_path / "old/pages-1.img", 1)
    refusal(tmp_path / "new")
    assert open_descriptors() == before


def test_no_descriptor_stays_open_when_a_parent_is_refused(tmp_path: Path) -> None:
    """The parents behind one that is refused are closed with it."""
    write_images(tmp_path / "a", [plain_task()])
    write_images(tmp_path / "b", [plain_task()], parent="../a")
    write_images(tmp_path / "c", [plain_task()], parent="../b")
    os.truncate(tmp_path / "b/inventory.img", 1)
    before = open_descriptors()
    assert refusal(tmp_path / "c").file == "parent/inventory.img"
    assert open_descriptors() == before
