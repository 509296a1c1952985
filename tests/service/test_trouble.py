"""Pages that cannot be delivered, while the processes that want them already run."""

from __future__ import annotations

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from tests.service.conftest import NR_PAGES, Stage
from tests.service.daemon import OFTEN
from tests.service.restorer import page_addr

pytestmark = pytest.mark.uffd


def test_process_that_is_killed_wants_nothing_more(stage: Stage) -> None:
    """A process that dies while pages are missing ends the daemon, with 0 and a word."""
    daemon = stage.daemon("-v")
    stage.pages().write_bytes(b"")
    restorer = stage.released()
    daemon.wait_for_log("cannot be filled ahead")
    restorer.kill()
    assert daemon.wait() == 0
    assert "process restore 1/7: gone" in daemon.log


def test_lost_page_is_waited_for_and_never_zero(stage: Stage) -> None:
    """Who touches a page that its file has lost waits, and reads its bytes once the file is whole
    again."""
    daemon = stage.daemon(times=OFTEN)
    whole = stage.pages().read_bytes()
    stage.pages().write_bytes(whole[: 5 * PAGE_SIZE])
    restorer = stage.released()
    restorer.begin_read(7, 20)
    restorer.begin_read(7, 40)
    assert restorer.waits()
    stage.pages().write_bytes(whole)
    assert sorted([restorer.page(), restorer.page()]) == ["7 20 right", "7 40 right"]
    restorer.check(7, NR_PAGES)
    assert daemon.wait() == 0


def test_lost_page_is_named(stage: Stage) -> None:
    """The log says which page of which process waits, where its bytes are missing, and what to
    do."""
    daemon = stage.daemon()
    stage.pages().write_bytes(stage.pages().read_bytes()[: 5 * PAGE_SIZE + 1])
    restorer = stage.half_done()
    restorer.begin_read(7, 20)
    daemon.wait_for_log("\n")
    assert daemon.errors == [
        f"process restore 1/7: page {page_addr(7, 20):#x} is waited for and cannot be filled:"
        f" pages-7.img at offset {20 * PAGE_SIZE}: the file ends before it:"
        " put the whole file back in place; it is tried again every 10 seconds"
    ]


def test_page_that_is_cut_in_two_is_lost(stage: Stage) -> None:
    """A file that ends within a page has not got that page: nobody reads half of it."""
    daemon = stage.daemon(times=OFTEN)
    whole = stage.pages().read_bytes()
    stage.pages().write_bytes(whole[: 5 * PAGE_SIZE + 100])
    restorer = stage.released()
    assert restorer.read(7, 4) == "right"
    restorer.begin_read(7, 5)
    daemon.wait_for_log(f"page {page_addr(7, 5):#x} ")
    assert restorer.waits()
    stage.pages().write_bytes(whole)
    assert restorer.page() == "7 5 right"
    assert daemon.wait() == 0


def test_others_go_on_while_a_page_is_lost(stage: Stage) -> None:
    """Pages that are still there, and other processes, do not wait with the one that does."""
    stage.checkpoint({7: NR_PAGES, 8: NR_PAGES})
    daemon = stage.daemon(times=OFTEN)
    whole = stage.pages().read_bytes()
    stage.pages().write_bytes(whole[: 32 * PAGE_SIZE])
    restorer = stage.released({7: NR_PAGES, 8: NR_PAGES})
    restorer.begin_read(7, 40)
    daemon.wait_for_log(f"page {page_addr(7, 40):#x} is waited for")
    restorer.check(7, 32)
    restorer.check(8, NR_PAGES)
    assert restorer.waits()
    stage.pages().write_bytes(whole)
    assert restorer.page() == "7 40 right"
    assert daemon.wait() == 0


def test_pages_that_nobody_waits_for_are_tried_again(stage: Stage) -> None:
    """What the drain could not deliver it delivers once the file is whole, though nobody asks."""
    daemon = stage.daemon(times=OFTEN)
    whole = stage.pages().read_bytes()
    stage.pages().write_bytes(b"")
    restorer = stage.released()
    daemon.wait_for_log("cannot be filled ahead")
    stage.pages().write_bytes(whole)
    assert daemon.wait() == 0
    restorer.check(7, NR_PAGES)
