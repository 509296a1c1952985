from __future__ import annotations

from pathlib import Path

import pytest

from lazypagesd.errors import ImageError
from lazypagesd.images import wire
from lazypagesd.images.framing import U32, Magic
from lazypagesd.images.inventory import INVENTORY_MAX
from lazypagesd.images.writer import frame, write_images
from tests.images.loading import load, plain_task, refusal, write_plain


def write_inventory(directory: Path, entry: wire.inventory_entry, *, extra: bytes = b"") -> None:
    payload = entry.SerializePartialToString() + extra
    head = frame(Magic.INVENTORY, [])
    (directory / "inventory.img").write_bytes(head + U32.pack(len(payload)) + payload)


def refused(directory: Path, entry: wire.inventory_entry, *, extra: bytes = b"") -> ImageError:
    write_plain(directory)
    write_inventory(directory, entry, extra=extra)
    error = refusal(directory)
    assert (error.file, error.offset) == ("inventory.img", 4)
    return error


@pytest.mark.parametrize("version", [0, 3])
def test_version_is_refused_when_unknown(tmp_path: Path, version: int) -> None:
    """Only versions 1 and 2 are served; any other is named."""
    error = refused(tmp_path, wire.inventory_entry(img_version=version, fdinfo_per_id=True))
    assert f"img_version {version}" in error.what


@pytest.mark.parametrize(
    "entry",
    [
        wire.inventory_entry(img_version=2, fdinfo_per_id=False),
        wire.inventory_entry(img_version=2),
    ],
)
def test_fdinfo_per_id_must_be_true(tmp_path: Path, entry: wire.inventory_entry) -> None:
    """Images from before fdinfo_per_id are too old."""
    assert "fdinfo_per_id" in refused(tmp_path, entry).what


def test_version_is_missed_when_not_there(tmp_path: Path) -> None:
    """An inventory without its version is none."""
    error = refused(tmp_path, wire.inventory_entry(), extra=b"\x10\x01")
    assert error.what == "inventory_entry of 2 bytes lacks a required field"


def test_unknown_field_is_refused(tmp_path: Path) -> None:
    """A field that is not known means a newer CRIU, and is never skipped."""
    entry = wire.inventory_entry(img_version=2, fdinfo_per_id=True)
    error = refused(tmp_path, entry, extra=b"\x78\x01")  # field 15, varint 1
    assert "field 15 of inventory_entry" in error.what
    assert "newer CRIU; cannot serve" in error.what


def test_record_is_refused_when_larger_than_an_inventory_can_be(tmp_path: Path) -> None:
    """Unknown fields cost thirty times their size, so a large record is not even looked at."""
    entry = wire.inventory_entry(img_version=2, fdinfo_per_id=True)
    error = refused(tmp_path, entry, extra=b"\x78\x01" * (INVENTORY_MAX // 2))
    assert f"is longer than any known ({INVENTORY_MAX})" in error.what


def test_every_known_field_is_accepted(tmp_path: Path) -> None:
    """An inventory with all that CRIU 4.2 can write in it is served."""
    write_plain(tmp_path)
    entry = wire.inventory_entry(
        img_version=2,
        fdinfo_per_id=True,
        root_ids=b"\x08\x01",
        ns_per_id=True,
        root_cg_set=1,
        lsmtype=1,
        dump_uptime=1,
        pre_dump_mode=1,
        tcp_close=False,
        network_lock_method=1,
        plugins_entry=b"",
        dump_criu_run_id=b"id",
        allow_uprobes=False,
    )
    write_inventory(tmp_path, entry)
    load(tmp_path).close()


def test_parent_is_framed_as_child_when_it_has_no_inventory(tmp_path: Path) -> None:
    """A pre-dump without an inventory of its own is read as its child is."""
    write_images(tmp_path / "old", [plain_task()])
    (tmp_path / "old/inventory.img").unlink()
    write_images(tmp_path / "new", [plain_task()], parent="../old")
    load(tmp_path / "new").close()


def test_parent_inventory_is_checked_too(tmp_path: Path) -> None:
    """A parent from a newer CRIU is refused under its own name."""
    write_images(tmp_path / "old", [plain_task()])
    write_inventory(tmp_path / "old", wire.inventory_entry(img_version=3, fdinfo_per_id=True))
    write_images(tmp_path / "new", [plain_task()], parent="../old")
    assert refusal(tmp_path / "new").file == "parent/inventory.img"
