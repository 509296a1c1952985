"""How a file may be read without waiting, found out by trying."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lazypagesd.errors import SourceError
from lazypagesd.native import lib
from lazypagesd.sources.file import FileSource, Kind, filesystem_of, kind_of

# File systems that say at once what they have in the page cache.
CACHING = {"ext4", "xfs", "btrfs"}


def test_kinds_have_the_numbers_of_the_data_plane() -> None:
    """Each kind is what session.h calls by its name."""
    assert {kind: getattr(lib, f"LPD_SOURCE_{kind.name}") for kind in Kind} == {
        kind: kind.value for kind in Kind
    }


def test_memfd_is_memory() -> None:
    """A memfd never waits, and is told from files by what it is."""
    fd = os.memfd_create("pages")
    os.write(fd, bytes(5000))
    assert FileSource.of(fd, "pages") == FileSource("pages", fd, 5000, Kind.MEMORY)
    os.close(fd)


def test_file_in_shared_memory_is_memory() -> None:
    """A file in a tmpfs never waits, either."""
    fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
    found = filesystem_of(fd)
    if found != "tmpfs":
        pytest.skip(f"/dev/shm: is {found}")
    assert kind_of(fd, "shm") == Kind.MEMORY
    os.close(fd)


def test_file_on_disk_is_cached(tmp_path: Path) -> None:
    """A file on disk can be asked for what is in the page cache."""
    path = tmp_path / "pages-1.img"
    path.write_bytes(bytes(4096))
    with path.open("rb") as file:
        if (found := filesystem_of(file.fileno())) not in CACHING:
            pytest.skip(f"{tmp_path}: is {found}")
        source = FileSource.of(file.fileno(), path.name)
        assert (source.name, source.size, source.kind) == (path.name, 4096, Kind.CACHED)


def test_file_of_the_kernel_may_block() -> None:
    """A read from procfs cannot be asked not to wait."""
    with Path("/proc/self/maps").open("rb") as file:
        assert kind_of(file.fileno(), "maps") == Kind.BLOCKING
        assert filesystem_of(file.fileno()) == "proc"


def test_directory_is_refused(tmp_path: Path) -> None:
    """A directory, which the kernel refuses only when it is read, is refused by its name."""
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(SourceError, match=r"^pages-1\.img: is a directory$"):
        FileSource.of(fd, "pages-1.img")
    os.close(fd)


def test_what_is_open_for_writing_only_is_named(tmp_path: Path) -> None:
    """A descriptor that does not allow reading is refused."""
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(SourceError, match=r"^file: cannot be read"):
        kind_of(fd, "file")
    os.close(fd)
