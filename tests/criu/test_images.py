"""Image directories other than a plain dump's: chains of parents, and such as cannot be served."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.criu import imagetool
from tests.criu.harness import Bed

pytestmark = [pytest.mark.criu, pytest.mark.root]


def _restore_and_check(bed: Bed) -> None:
    daemon = bed.daemon("-o", "lazy-pages.log")
    bed.go()
    bed.restore()
    tally = bed.tally("plain")
    assert tally.nr_wrong == 0, tally
    assert daemon.wait() == 0


def test_rewritten_image_is_restored(bed: Bed, victims: Path) -> None:
    """What the tool that the other tests rely on has read and written is the same image."""
    bed.start(victims / "plain", 4, 1)
    bed.dump()
    entries = imagetool.read(bed.images, bed.pid)
    imagetool.write(bed.images, bed.pid, entries)
    assert imagetool.read(bed.images, bed.pid) == entries
    _restore_and_check(bed)


# criu lazy-pages reads a page from the parent, does not fill it in, and waits for itself for ever.
@pytest.mark.usefixtures("beyond_criu")
def test_pages_of_a_parent_are_restored(bed: Bed, victims: Path) -> None:
    """Pages, in runs of several lengths, come from the parent image where the child has none."""
    bed.start(victims / "plain", 16, 7919)
    bed.dump()
    parent = bed.directory / "parent"
    imagetool.split_into_parent(bed.images, parent, bed.pid, lambda n: n % 7 < 3 or n % 1000 > 600)
    _restore_and_check(bed)


@pytest.mark.usefixtures("beyond_criu")
def test_pages_of_three_parents_are_restored(bed: Bed, victims: Path) -> None:
    """A chain of three parents, whose pages alternate, is followed to where a page is."""
    bed.start(victims / "plain", 16, 7919)
    bed.dump()
    parents = [bed.directory / f"parent-{i}" for i in range(3)]
    imagetool.split_into_parent(bed.images, parents[0], bed.pid, lambda n: n % 64 < 40)
    imagetool.split_into_parent(parents[0], parents[1], bed.pid, lambda n: n % 5 < 3)
    imagetool.split_into_parent(parents[1], parents[2], bed.pid, lambda n: n % 3 == 1)
    _restore_and_check(bed)


def test_missing_inventory_is_refused(bed: Bed, victims: Path) -> None:
    """The daemon ends with 1 and a message, and nothing listens."""
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    (bed.images / "inventory.img").unlink()
    _assert_refused(bed)


# criu lazy-pages does without the one, and misses the others when the process is handed over.
@pytest.mark.usefixtures("beyond_criu")
@pytest.mark.parametrize("name", ["pstree.img", "mm-{}.img", "pagemap-{}.img", "pages-1.img"])
def test_missing_image_file_is_refused(bed: Bed, victims: Path, name: str) -> None:
    """The daemon ends with 1 and a message, and nothing listens."""
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    (bed.images / name.format(bed.pid)).unlink()
    _assert_refused(bed)


# criu lazy-pages fills in other pages' bytes.
@pytest.mark.usefixtures("beyond_criu")
def test_image_without_its_lazy_pages_is_refused(bed: Bed, victims: Path) -> None:
    """An image whose pages stayed with the source is never served from local files."""
    bed.start(victims / "plain", 1, 1)
    bed.dump()
    imagetool.lose_lazy_pages(bed.images, bed.pid)
    _assert_refused(bed)


def _assert_refused(bed: Bed) -> None:
    daemon = bed.daemon_unready()
    assert daemon.status() == b""
    assert daemon.wait() == 1
    assert daemon.output.read_text().strip()
    assert bed.try_restore() != 0
