from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lazypagesd.images.mm import (
    ADDR_LIMIT,
    MAP_ANONYMOUS,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_PRIVATE,
    PAGE_SIZE,
    Vma,
    VmaStatus,
)
from lazypagesd.images.writer import ImageTask, anon_vma, write_images
from tests.images.loading import BASE, addr, load, refusal

ANON = anon_vma(BASE, 2)
PRIVATE_ANON = MAP_PRIVATE | MAP_ANONYMOUS


def refused(directory: Path, *vmas: Vma) -> str:
    write_images(directory, [ImageTask(7, vmas)])
    error = refusal(directory)
    assert (error.file, error.offset) == ("mm-7.img", 8)
    return error.what


def test_vma_is_lazy_when_private_and_anonymous() -> None:
    """Private anonymous memory is what is left to be filled."""
    assert ANON.lazy


@pytest.mark.parametrize(
    "flags",
    [
        MAP_PRIVATE,
        MAP_ANONYMOUS,
        PRIVATE_ANON | MAP_LOCKED,
        PRIVATE_ANON | MAP_HUGETLB,
    ],
)
def test_vma_is_not_lazy_when_flags_say_otherwise(flags: int) -> None:
    """Shared, file, locked and huge memory is restored at once."""
    assert not replace(ANON, flags=flags).lazy


@pytest.mark.parametrize("status", VmaStatus)
def test_vma_is_not_lazy_when_special(status: VmaStatus) -> None:
    """What the kernel maps by itself, and guards, are never lazy, whatever their flags."""
    assert not replace(ANON, status=status).lazy


def test_vma_is_refused_when_unaligned(tmp_path: Path) -> None:
    """A boundary inside a page is refused with the address."""
    what = refused(tmp_path, replace(ANON, start=BASE + 1))
    assert f"VMA {BASE + 1:#x}-{ANON.end:#x} is not aligned" in what


def test_vma_is_refused_when_it_ends_before_it_starts(tmp_path: Path) -> None:
    """A range of no bytes, or of less, is refused."""
    assert "ends before it starts" in refused(tmp_path, replace(ANON, end=BASE))


def test_vma_is_refused_when_past_user_addresses(tmp_path: Path) -> None:
    """Nothing that a process can map ends behind the last page below 2^47."""
    vma = replace(ANON, start=ADDR_LIMIT - PAGE_SIZE, end=ADDR_LIMIT + PAGE_SIZE)
    assert "addresses (0x7ffffffff000)" in refused(tmp_path, vma)


@pytest.mark.parametrize("second", [addr(1), BASE - PAGE_SIZE])
def test_vmas_are_refused_when_unsorted(tmp_path: Path, second: int) -> None:
    """VMAs that overlap, or go backwards, are refused."""
    what = refused(tmp_path, ANON, anon_vma(second, 1))
    assert f"VMA {second:#x}" in what
    assert f"ends ({ANON.end:#x})" in what


def test_guards_lie_anywhere(tmp_path: Path) -> None:
    """The fake VMAs of guard pages follow the others, and lie within them."""
    guard = replace(anon_vma(BASE, 1), status=VmaStatus.GUARD)
    write_images(tmp_path, [ImageTask(7, (ANON, guard))])
    load(tmp_path).close()


def test_vsyscall_page_lies_in_the_kernels_half(tmp_path: Path) -> None:
    """The one mapping of a process that is not at a user's address is accepted."""
    start = 0xFFFFFFFFFF600000
    vsyscall = Vma(start, start + PAGE_SIZE, 5, PRIVATE_ANON, VmaStatus.VSYSCALL)
    write_images(tmp_path, [ImageTask(7, (ANON, vsyscall))])
    load(tmp_path).close()


def test_mm_is_refused_when_it_has_no_mapping(tmp_path: Path) -> None:
    """Images that keep their VMAs in another file are too old."""
    assert "no mapping in it" in refused(tmp_path)
