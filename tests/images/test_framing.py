from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from lazypagesd.errors import ImageError
from lazypagesd.images.directory import ImageDirectory
from lazypagesd.images.framing import RECORD_MAX, Framing, ImageFile, Magic
from lazypagesd.images.writer import write_images
from tests.images.loading import load, plain_task, refusal, write_plain

FILES = ["inventory.img", "pstree.img", "mm-7.img", "pagemap-7.img"]


def head_size(file: str) -> int:
    return 4 if file == "inventory.img" else 8


@pytest.mark.parametrize("framing", Framing)
def test_checkpoint_loads_in_both_framings(tmp_path: Path, framing: Framing) -> None:
    """Images without a head magic load as those with one do."""
    write_images(tmp_path, [plain_task()], framing=framing)
    with load(tmp_path) as checkpoint:
        assert checkpoint.nr_pages == 4


def test_head_magic_is_left_out_when_version_is_1(tmp_path: Path) -> None:
    """In a v1 image the type is the first word of every file."""
    write_images(tmp_path, [plain_task()], framing=Framing.V1)
    assert (tmp_path / "pstree.img").read_bytes()[:4] == struct.pack("=I", 0x50273030)


def test_head_magic_is_refused_when_version_is_1(tmp_path: Path) -> None:
    """A file framed as v1.1 in a v1 image is refused: its head is not its type."""
    write_plain(tmp_path)
    v1 = tmp_path / "v1"
    write_images(v1, [plain_task()], framing=Framing.V1)
    (v1 / "pstree.img").write_bytes((tmp_path / "pstree.img").read_bytes())
    error = refusal(v1)
    assert (error.file, error.offset) == ("pstree.img", 0)
    assert "0x54564319" in error.what


@pytest.mark.parametrize("file", FILES)
def test_missing_file_is_named(tmp_path: Path, file: str) -> None:
    """A file that is not there is told by its name."""
    write_plain(tmp_path)
    (tmp_path / file).unlink()
    assert str(refusal(tmp_path)).startswith(f"{file}: missing")


@pytest.mark.parametrize("file", FILES)
def test_empty_file_is_named(tmp_path: Path, file: str) -> None:
    """A file of no bytes is told as such: it is what a dump that failed leaves."""
    write_plain(tmp_path)
    os.truncate(tmp_path / file, 0)
    assert str(refusal(tmp_path)).startswith(f"{file}: empty")


@pytest.mark.parametrize("file", FILES)
def test_wrong_magic_is_named_with_its_offset(tmp_path: Path, file: str) -> None:
    """A file of another type is refused with the number that it has instead."""
    write_plain(tmp_path)
    offset = head_size(file) - 4
    with (tmp_path / file).open("r+b") as image:
        image.seek(offset)
        image.write(struct.pack("=I", 0xDEAD))
    error = refusal(tmp_path)
    assert (error.file, error.offset) == (file, offset)
    assert "0x0000dead" in error.what


@pytest.mark.parametrize("file", FILES)
def test_file_cut_inside_magic_is_refused(tmp_path: Path, file: str) -> None:
    """A file that ends inside a magic number says so, and how much of it there is."""
    write_plain(tmp_path)
    os.truncate(tmp_path / file, head_size(file) - 1)
    error = refusal(tmp_path)
    assert (error.file, error.offset) == (file, head_size(file) - 4)
    assert "3 bytes are left" in error.what


@pytest.mark.parametrize("file", FILES)
def test_file_cut_inside_record_size_is_refused(tmp_path: Path, file: str) -> None:
    """A file that ends inside a record's size says so."""
    write_plain(tmp_path)
    os.truncate(tmp_path / file, head_size(file) + 2)
    error = refusal(tmp_path)
    assert (error.file, error.offset) == (file, head_size(file))
    assert "2 bytes are left" in error.what


@pytest.mark.parametrize("file", FILES)
def test_record_longer_than_file_is_refused(tmp_path: Path, file: str) -> None:
    """A record that claims more than there is names the claim, and allocates nothing for it."""
    write_plain(tmp_path)
    with (tmp_path / file).open("r+b") as image:
        image.seek(head_size(file))
        image.write(struct.pack("=I", 0xFFFFFFF0))
    error = refusal(tmp_path)
    assert (error.file, error.offset) == (file, head_size(file))
    assert "record of 4294967280 bytes runs past the file" in error.what


def test_absurd_record_of_sparse_file_is_refused(tmp_path: Path) -> None:
    """A file can be made large for nothing; a record in it is still bounded."""
    write_plain(tmp_path)
    with (tmp_path / "mm-7.img").open("r+b") as image:
        image.seek(8)
        image.write(struct.pack("=I", RECORD_MAX + 1))
        image.truncate(2 * RECORD_MAX)
    error = refusal(tmp_path)
    assert (error.file, error.offset) == ("mm-7.img", 8)
    assert f"record of {RECORD_MAX + 1} bytes" in error.what


@pytest.mark.parametrize("file", ["inventory.img", "mm-7.img"])
def test_second_record_is_refused_where_there_is_one(tmp_path: Path, file: str) -> None:
    """What follows the only record of a file is refused, not skipped."""
    write_plain(tmp_path)
    size = (tmp_path / file).stat().st_size
    with (tmp_path / file).open("ab") as image:
        image.write(bytes(4))
    error = refusal(tmp_path)
    assert (error.file, error.offset) == (file, size)
    assert "4 bytes after" in error.what


def test_garbage_record_is_refused(tmp_path: Path) -> None:
    """A record that is no message of its type names itself."""
    write_plain(tmp_path)
    with (tmp_path / "pstree.img").open("r+b") as image:
        image.seek(12)
        image.write(b"\xff" * 4)
    error = refusal(tmp_path)
    assert (error.file, error.offset) == ("pstree.img", 8)
    assert "not a pstree_entry" in error.what


def test_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A file that is no file cannot make the loader wait."""
    write_plain(tmp_path)
    (tmp_path / "pstree.img").unlink()
    os.mkfifo(tmp_path / "pstree.img")
    assert str(refusal(tmp_path)) == "pstree.img: not a regular file"


def test_file_is_refused_when_it_shrinks_under_the_reader(tmp_path: Path) -> None:
    """A file that someone cuts while it is read is an error, and no crash."""
    write_plain(tmp_path)
    with (
        ImageDirectory(os.open(tmp_path, os.O_RDONLY)) as directory,
        ImageFile(directory, "mm-7.img") as image,
    ):
        image.read_magic(Magic.MM, Framing.V1_1)
        os.truncate(tmp_path / "mm-7.img", 8)
        with pytest.raises(ImageError, match="offset 8: became shorter"):
            image.read_record()


def test_parent_may_be_framed_otherwise(tmp_path: Path) -> None:
    """Each image of a chain is framed as its own inventory says."""
    write_images(tmp_path / "old", [plain_task()], framing=Framing.V1)
    write_images(tmp_path / "new", [plain_task()], parent="../old")
    with load(tmp_path / "new") as checkpoint:
        assert len(checkpoint.page_map(7).sources) == 2
