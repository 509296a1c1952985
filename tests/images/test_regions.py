"""Regions that a restore tool names itself."""

from __future__ import annotations

import pytest

from lazypagesd.engine.state import State
from lazypagesd.errors import SessionError
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.pagemap import PageMap, Region
from lazypagesd.images.regions import REGION, USER_SPACE_END, NamedRegion, RegionTable
from lazypagesd.native import ffi

START = 0x100000000000
FILE = 1 << 20


def add(*regions: tuple[int, int, int, int]) -> list[str]:
    """Add regions to a table with one file, and return what is said of the last."""
    table, reasons = RegionTable([FILE]), [""]
    for region in regions:
        reasons = table.add(NamedRegion(*region))
    return reasons


def test_regions_are_as_they_were_named() -> None:
    """A page map has the regions in order, their bits side by side."""
    table = RegionTable([FILE, FILE])
    assert table.add(NamedRegion(START, 2, PAGE_SIZE, 1)) == []
    assert table.add(NamedRegion(START + 2 * PAGE_SIZE, 3, 0, 0)) == []
    page_map = table.page_map()
    assert [*page_map] == [
        Region(START, 2, PAGE_SIZE, 1, 0),
        Region(START + 2 * PAGE_SIZE, 3, 0, 0, 2),
    ]
    assert page_map.nr_pages == 5
    assert ffi.sizeof("struct lpd_region") == REGION.size


def create(page_map: PageMap) -> None:
    """Lay out a state, as the engine does."""
    State.create("test", page_map.regions, page_map.nr_regions, page_map.nr_pages, 1).close()


def test_last_page_of_the_user_is_where_the_engine_has_it() -> None:
    """What is accepted here the engine accepts, and what is refused here it refuses."""
    table = RegionTable([FILE])
    assert table.add(NamedRegion(USER_SPACE_END - PAGE_SIZE, 1, 0, 0)) == []
    create(table.page_map())
    [reason] = add((USER_SPACE_END, 1, 0, 0))
    assert reason == f"runs past the user's addresses ({USER_SPACE_END:#x})"
    beyond = ffi.new("struct lpd_region[]", [(USER_SPACE_END, 0, 0, 1, 0)])
    with pytest.raises(SessionError):
        create(PageMap(beyond, 1, 1, ()))


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        ((START, 0, 0, 0), "has 0 pages"),
        ((START, 1 << 32, 0, 0), "has 4294967296 pages"),
        ((START + 1, 1, 0, 0), "is not aligned (offset 0x0)"),
        ((START, 1, 7, 0), "is not aligned (offset 0x7)"),
        ((2**64 - PAGE_SIZE, 1, 0, 0), "runs past the user's addresses"),
        ((START, 1, 0, 1), "names file 1 of 1: count from 0"),
        ((START, 1, FILE, 0), f"needs {FILE + PAGE_SIZE} bytes of file 0, which has {FILE}"),
        ((START, 1, 2**64 - PAGE_SIZE, 0), f"needs {2**64} bytes of file 0"),
    ],
)
def test_what_cannot_be_is_refused(region: tuple[int, int, int, int], reason: str) -> None:
    """A region that could not be served exactly is refused, with the reason."""
    assert reason in "; ".join(add(region))


def test_regions_ascend() -> None:
    """A region that overlaps the one before it, or precedes it, is refused, and left out."""
    first = (START + PAGE_SIZE, 2, 0, 0)
    [overlaps] = add(first, (START + 2 * PAGE_SIZE, 1, 0, 0))
    [precedes] = add(first, (START, 1, 0, 0))
    assert overlaps == precedes
    assert overlaps.startswith("begins before the one before it ends")


def test_every_reason_is_given() -> None:
    """What is wrong with a region is said all at once."""
    assert len(add((1, 0, 7, 9))) == 3
