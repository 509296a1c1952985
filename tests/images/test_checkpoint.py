from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.pagemap import Region
from lazypagesd.images.writer import (
    LAZY,
    PARENT,
    PRESENT,
    ImageEntry,
    ImageTask,
    anon_vma,
    write_images,
)
from tests.images.loading import BASE, addr, load, plain_task, refusal, write_plain


def lazy_in_parent(page: int, nr_pages: int = 1) -> ImageEntry:
    return ImageEntry(addr(page), nr_pages, LAZY | PARENT)


def in_parent(page: int, nr_pages: int = 1) -> ImageEntry:
    return ImageEntry(addr(page), nr_pages, PARENT)


def present(page: int, nr_pages: int = 1) -> ImageEntry:
    return ImageEntry(addr(page), nr_pages, PRESENT)


def task(*entries: ImageEntry, nr_pages: int = 16) -> ImageTask:
    held = sum(entry.nr_pages for entry in entries if entry.flags & PRESENT)
    return ImageTask(7, (anon_vma(BASE, nr_pages),), entries, bytes(held * PAGE_SIZE))


def test_bytes_of_each_region_are_those_of_its_pages(tmp_path: Path) -> None:
    """Reading a region from its source gives what was dumped there."""
    write_plain(tmp_path)
    with load(tmp_path) as checkpoint:
        page_map = checkpoint.page_map(7)
        for region in page_map:
            size = region.nr_pages * PAGE_SIZE
            data = os.pread(page_map.sources[region.source].fd, size, region.offset)
            assert data == plain_task().pages


def test_processes_have_maps_of_their_own(tmp_path: Path) -> None:
    """Each process is served from the pages file that its own pagemap names."""
    write_images(tmp_path, [plain_task(7), plain_task(8, nr_pages=2, pages_id=2)])
    with load(tmp_path) as checkpoint:
        assert checkpoint.page_map(7).nr_pages == 4
        assert checkpoint.page_map(8).nr_pages == 2
        assert checkpoint.page_map(8).sources[0].name == "pages-2.img"
        assert checkpoint.nr_pages == 6


def test_pages_file_is_open_once_when_processes_share_it(tmp_path: Path) -> None:
    """Two processes of one pages file have one descriptor of it."""
    write_images(tmp_path, [plain_task(7), plain_task(8)])
    with load(tmp_path) as checkpoint:
        assert checkpoint.page_map(7).sources[0] is checkpoint.page_map(8).sources[0]


def test_pages_file_is_refused_when_too_short(tmp_path: Path) -> None:
    """Bytes that are not there are missed at load, and not at the fault that wants them."""
    write_plain(tmp_path)
    os.truncate(tmp_path / "pages-1.img", 3 * PAGE_SIZE)
    error = refusal(tmp_path)
    assert (error.file, error.offset) == ("pages-1.img", 3 * PAGE_SIZE)
    assert "shorter than pagemap-7.img says (12288 of 16384 bytes)" in error.what


def test_pages_file_is_refused_when_missing(tmp_path: Path) -> None:
    """A pagemap whose pages are elsewhere cannot be served."""
    write_plain(tmp_path)
    (tmp_path / "pages-1.img").unlink()
    assert str(refusal(tmp_path)).startswith("pages-1.img: missing")


def test_page_is_refused_when_left_at_its_source(tmp_path: Path) -> None:
    """A dump that kept its lazy pages needs a page server, and says so."""
    write_images(tmp_path, [task(present(0), ImageEntry(addr(1), 1, LAZY))])
    error = refusal(tmp_path)
    assert error.file == "pagemap-7.img"
    assert f"page {addr(1):#x} was left at its source" in error.what
    assert "--page-server is needed" in error.what


def test_page_of_parent_is_refused_when_left_at_its_source(tmp_path: Path) -> None:
    """A parent that never had the bytes is the one to be named."""
    write_images(tmp_path / "old", [task(ImageEntry(addr(0), 4, LAZY))])
    write_images(tmp_path / "new", [task(lazy_in_parent(2))], parent="../old")
    error = refusal(tmp_path / "new")
    assert error.file == "parent/pagemap-7.img"
    assert f"{addr(2):#x}" in error.what


def test_page_is_refused_when_missing_in_parent(tmp_path: Path) -> None:
    """A hole in the parent where the child counts on it names the page and the parent."""
    write_images(tmp_path / "old", [task(present(0), present(2))])
    write_images(tmp_path / "new", [task(lazy_in_parent(0, 3))], parent="../old")
    error = refusal(tmp_path / "new")
    assert error.file == "parent/pagemap-7.img"
    assert f"page {addr(1):#x} is missing" in error.what


def test_page_is_refused_when_there_is_no_parent(tmp_path: Path) -> None:
    """A page that is to be in a parent cannot be served without one."""
    write_images(tmp_path, [task(lazy_in_parent(5))])
    error = refusal(tmp_path)
    assert error.file == "pagemap-7.img"
    assert f"page {addr(5):#x} is to be in a parent" in error.what


def test_missing_and_empty_pagemaps_of_parents_are_no_parents(tmp_path: Path) -> None:
    """A process that a parent knows nothing of has no parent there."""
    write_images(tmp_path / "old", [plain_task(8)])
    write_images(tmp_path / "new", [plain_task(7)], parent="../old")
    with load(tmp_path / "new") as checkpoint:
        assert len(checkpoint.page_map(7).sources) == 1
    (tmp_path / "old/pagemap-7.img").touch()
    with load(tmp_path / "new") as checkpoint:
        assert len(checkpoint.page_map(7).sources) == 1


def test_three_generations_are_laid_flat(tmp_path: Path) -> None:
    """Each page is served from the image that has it, at its place there."""
    oldest = task(present(0, 3), present(3, 5))
    older = task(in_parent(0, 2), present(2), in_parent(3, 2), present(5, 2), in_parent(7))
    newest = task(lazy_in_parent(0, 7), ImageEntry(addr(7), 1, LAZY | PRESENT))
    write_images(tmp_path / "a", [oldest])
    write_images(tmp_path / "b", [older], parent="../a")
    write_images(tmp_path / "c", [newest], parent="../b")
    with load(tmp_path / "c") as checkpoint:
        page_map = checkpoint.page_map(7)
        names = ["pages-1.img", "parent/pages-1.img", "parent/parent/pages-1.img"]
        assert [file.name for file in page_map.sources] == names
        assert [
            ((r.start - BASE) // PAGE_SIZE, r.nr_pages, r.source, r.offset // PAGE_SIZE)
            for r in page_map
        ] == [(0, 2, 2, 0), (2, 1, 1, 0), (3, 2, 2, 3), (5, 2, 1, 1), (7, 1, 0, 0)]
        assert [r.first_bit for r in page_map] == [0, 2, 3, 5, 7]


def test_only_lazy_entries_of_the_checkpoint_are_served(tmp_path: Path) -> None:
    """What is not lazy is restored at once, though it takes its place in the pages file."""
    write_images(tmp_path, [task(present(0, 2), ImageEntry(addr(2)), present(3))])
    with load(tmp_path) as checkpoint:
        (region,) = checkpoint.page_map(7)
        assert (region.start, region.offset) == (addr(2), 2 * PAGE_SIZE)


def test_regions_are_cut_at_vma_boundaries(tmp_path: Path) -> None:
    """One entry across two VMAs is two regions, and what lies in none is dropped."""
    vmas = (anon_vma(addr(1), 2), anon_vma(addr(3), 1), anon_vma(addr(5), 1))
    entry = ImageEntry(BASE, 8)
    one = replace(task(entry), vmas=vmas)
    write_images(tmp_path, [one])
    with load(tmp_path) as checkpoint:
        assert [(r.start, r.nr_pages, r.offset // PAGE_SIZE) for r in checkpoint.page_map(7)] == [
            (addr(1), 2, 1),
            (addr(3), 1, 3),
            (addr(5), 1, 5),
        ]


def test_neighbouring_entries_are_one_region(tmp_path: Path) -> None:
    """What the dump cut at the size of a pipe is put together again."""
    write_images(tmp_path, [task(*(ImageEntry(addr(i)) for i in range(16)))])
    with load(tmp_path) as checkpoint:
        assert checkpoint.page_map(7).nr_regions == 1


def test_entries_longer_than_4_gib_are_laid_flat(tmp_path: Path) -> None:
    """Sizes in bytes do not fit 32 bits as numbers of pages do, in a parent neither."""
    nr_pages = (5 << 30) // PAGE_SIZE
    vmas = (anon_vma(BASE, 2 * nr_pages),)
    own = (ImageEntry(addr(0), nr_pages), lazy_in_parent(nr_pages, nr_pages))
    below = present(0, 2 * nr_pages)
    write_images(tmp_path / "below", [ImageTask(7, vmas, (below,))])
    write_images(tmp_path / "top", [ImageTask(7, vmas, own)], parent="../below")
    os.truncate(tmp_path / "below/pages-1.img", 2 * nr_pages * PAGE_SIZE)
    os.truncate(tmp_path / "top/pages-1.img", nr_pages * PAGE_SIZE)
    with load(tmp_path / "top") as checkpoint:
        first, second = checkpoint.page_map(7)
    assert first == Region(addr(0), nr_pages, 0, source=0, first_bit=0)
    assert second == Region(
        addr(nr_pages), nr_pages, nr_pages * PAGE_SIZE, source=1, first_bit=nr_pages
    )


def test_long_neighbouring_entries_are_one_region(tmp_path: Path) -> None:
    """Entries of 3 GiB each, side by side in memory and in the file, make one of 9 GiB."""
    nr_pages = (3 << 30) // PAGE_SIZE
    entries = tuple(ImageEntry(addr(i * nr_pages), nr_pages) for i in range(3))
    write_images(tmp_path, [ImageTask(7, (anon_vma(BASE, 3 * nr_pages),), entries)])
    os.truncate(tmp_path / "pages-1.img", 3 * nr_pages * PAGE_SIZE)
    with load(tmp_path) as checkpoint:
        (region,) = checkpoint.page_map(7)
    assert region == Region(addr(0), 3 * nr_pages, 0, source=0, first_bit=0)


def test_closing_twice_does_nothing(tmp_path: Path) -> None:
    """A checkpoint may be closed before its context ends."""
    write_plain(tmp_path)
    with load(tmp_path) as checkpoint:
        checkpoint.close()
