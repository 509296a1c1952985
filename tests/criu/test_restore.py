"""Whole restores: every byte of every process is what it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.criu.harness import Bed

pytestmark = [pytest.mark.criu, pytest.mark.root]

PAGES_PER_MIB = 256


def _restore(bed: Bed) -> None:
    bed.dump()
    daemon = bed.daemon("-o", "lazy-pages.log")
    bed.go()
    bed.restore()
    assert daemon.wait() == 0


@pytest.mark.parametrize("stride", [1, 7919])
def test_one_process_is_restored(bed: Bed, victims: Path, stride: int) -> None:
    """Every page of a process is right, touched in order or criss-cross while it is filled."""
    bed.start(victims / "plain", 64, stride)
    _restore(bed)
    tally = bed.tally("plain")
    assert tally.nr_wrong == 0, tally
    assert tally.nr_pages == 64 * PAGES_PER_MIB


def test_one_gibibyte_is_restored(bed: Bed, victims: Path) -> None:
    """A process of 1 GiB is right in every page."""
    bed.start(victims / "plain", 1024, 7919)
    _restore(bed)
    tally = bed.tally("plain")
    assert tally.nr_wrong == 0, tally
    assert tally.nr_pages == 1024 * PAGES_PER_MIB


def test_tree_is_restored(bed: Bed, victims: Path) -> None:
    """A tree with copy-on-write memory, threads and a zombie is right in each process."""
    bed.start(victims / "tree", 32)
    _restore(bed)
    for name in ("sharer", "threads", "parent"):
        tally = bed.tally(name)
        assert tally.nr_wrong == 0, (name, tally)
        assert tally.nr_pages == 32 * PAGES_PER_MIB


def test_fragmented_memory_is_restored(bed: Bed, victims: Path) -> None:
    """Where every other page was never written, those are zeros and the others right."""
    bed.start(victims / "sparse", 64, 2, "keep")
    _restore(bed)
    tally = bed.tally("sparse")
    assert tally.nr_wrong == 0, tally
    assert tally.nr_pages > 60 * PAGES_PER_MIB


# criu lazy-pages takes the length for an int, keeps the range and tries to fill it for ever.
@pytest.mark.usefixtures("beyond_criu")
def test_gibibytes_are_lost_at_once(bed: Bed, victims: Path) -> None:
    """An munmap and a MADV_DONTNEED of more than 2 GiB each are followed."""
    bed.start(victims / "sparse", 9 * 1024, 4096, "lose")
    _restore(bed)
    tally = bed.tally("sparse")
    assert tally.nr_wrong == 0, tally


def test_process_that_is_killed_is_given_up(bed: Bed, victims: Path) -> None:
    """The daemon ends well when the process that it fills has been killed."""
    bed.start(victims / "plain", 512, 1)
    bed.dump()
    daemon = bed.daemon("-o", "lazy-pages.log")
    bed.restore()
    os.kill(bed.pid, signal.SIGKILL)
    assert daemon.wait() == 0


def _churn(bed: Bed, victims: Path, operations: str) -> None:
    bed.start(victims / "churn", 128, 1.5, operations)
    _restore(bed)
    tally = bed.tally("churn")
    assert tally.nr_wrong == 0, tally
    assert int((bed.out / "forks").read_text()) > 0


def test_process_moves_its_memory_while_filled(bed: Bed, victims: Path) -> None:
    """Threads that mremap and write, beside forks that look, meet only right pages."""
    _churn(bed, victims, "mgwwl")


# criu lazy-pages ends when a range to unregister after a REMOVE has been unmapped meanwhile.
@pytest.mark.usefixtures("beyond_criu")
def test_process_drops_its_memory_while_filled(bed: Bed, victims: Path) -> None:
    """MADV_DONTNEED leaves zeros, and munmap nothing, among moves and forks."""
    _churn(bed, victims, "mgudwwl")


# criu lazy-pages copies across the split in the background, gets ENOENT and tries for ever.
@pytest.mark.usefixtures("beyond_criu")
def test_process_splits_its_memory_while_filled(bed: Bed, victims: Path) -> None:
    """An mprotect, which splits a VMA without an event, does no harm among all the rest."""
    _churn(bed, victims, "mgudwwlp")


# criu lazy-pages takes one restore and closes its listening socket.
@pytest.mark.usefixtures("beyond_criu")
def test_two_restores_of_one_image_share_a_daemon(bed: Bed, victims: Path) -> None:
    """Two restores of the same image at the same time, in two pid namespaces, are both right."""
    bed.start(victims / "plain", 512, 7919)
    bed.dump()
    daemon = bed.daemon("-o", "lazy-pages.log")
    restores = [bed.start_restore_in_pid_namespace() for _ in range(2)]
    for restore in restores:
        (restore.out / "go").touch()
    for restore in restores:
        assert restore.wait() == 0
        tally = restore.tally("plain")
        assert tally.nr_wrong == 0, tally
        assert tally.nr_pages == 512 * PAGES_PER_MIB
    assert daemon.wait() == 0


def test_one_restore_in_a_pid_namespace(bed: Bed, victims: Path) -> None:
    """A process that is restored with other pids than the daemon sees is right."""
    bed.start(victims / "plain", 32, 1)
    bed.dump()
    daemon = bed.daemon("-o", "lazy-pages.log")
    restore = bed.start_restore_in_pid_namespace()
    (restore.out / "go").touch()
    assert restore.wait() == 0
    assert restore.tally("plain").nr_wrong == 0
    assert daemon.wait() == 0
