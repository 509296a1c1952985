"""Image directories as values: valid ones, and what a few changes make of them."""

from __future__ import annotations

import enum
import functools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from lazypagesd.images.framing import U32, Framing
from lazypagesd.images.mm import MAP_ANONYMOUS, MAP_PRIVATE, PAGE_SIZE, Vma
from lazypagesd.images.writer import (
    LAZY,
    PARENT,
    PRESENT,
    ImageEntry,
    ImageTask,
    anon_vma,
    write_images,
)
from tests.images.loading import BASE, addr


@dataclass(frozen=True, slots=True)
class File:
    """A file; *hole* bytes that cost nothing follow its *data*."""

    data: bytes
    hole: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A symlink."""

    target: str


class Special(enum.Enum):
    """What is no file, though it has the name of one."""

    DIRECTORY = enum.auto()
    FIFO = enum.auto()


# By path; the checkpoint is the directory 0, its parent 1 and so on.
Tree = dict[str, File | Link | Special]

NUMBERS = st.one_of(
    st.integers(0, 64),
    st.integers(0, 2**64 - 1),
    st.sampled_from(
        [2**k + d for k in (7, 31, 32, 47, 63, 64) for d in (-1, 0) if 2**k + d < 2**64]
    ),
    st.integers(-4, 40).map(addr),
)
HOLES = st.sampled_from([1, PAGE_SIZE, 1 << 20, 64 << 20, 8 << 30, 1 << 40])


def write_tree(root: Path, tree: Tree) -> Path:
    """Write *tree* below *root*; return the checkpoint's directory."""
    for name, node in tree.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        match node:
            case File(data, hole):
                path.write_bytes(data)
                os.truncate(path, len(data) + hole)
            case Link(target):
                path.symlink_to(target)
            case Special.DIRECTORY:
                path.mkdir()
            case Special.FIFO:
                os.mkfifo(path)
    return root / "0"


def read_tree(root: Path) -> Tree:
    """Return what lies below *root*."""
    paths = sorted(path for path in root.glob("*/*"))
    return {
        str(path.relative_to(root)): Link(os.readlink(path))  # noqa: PTH115 - as it was written
        if path.is_symlink()
        else File(path.read_bytes())
        for path in paths
    }


@functools.cache
def valid_trees() -> tuple[Tree, ...]:
    """Return a plain checkpoint in either framing, and a chain of three with several processes."""
    return tuple(map(_written, (_plain, _old, _chain)))


def _written(write: object) -> Tree:
    assert callable(write)
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        return read_tree(Path(name))


def _task(pid: int, *entries: ImageEntry, pages_id: int = 1) -> ImageTask:
    held = sum(entry.nr_pages for entry in entries if entry.flags & PRESENT)
    mapped = Vma(addr(12), addr(14), 3, MAP_PRIVATE | MAP_ANONYMOUS | 0x2000, 0x201)
    vmas = anon_vma(BASE, 3), anon_vma(addr(3), 7), mapped, anon_vma(addr(20), 4)
    return ImageTask(pid, vmas, entries, bytes(held * PAGE_SIZE), pages_id)


def _plain(root: Path) -> None:
    write_images(root / "0", [_task(7, ImageEntry(BASE, 2), ImageEntry(addr(2), 6))])


def _old(root: Path) -> None:
    task = _task(7, ImageEntry(BASE), ImageEntry(addr(1), 2, PRESENT), ImageEntry(addr(5)))
    write_images(root / "0", [task], framing=Framing.V1)


def _chain(root: Path) -> None:
    lazy_parent = LAZY | PARENT
    write_images(
        root / "0",
        [
            _task(7, ImageEntry(BASE, 2), ImageEntry(addr(2), 6, lazy_parent)),
            _task(8, ImageEntry(addr(1), 4, lazy_parent), ImageEntry(addr(12), 9), pages_id=2),
            ImageTask(9, zombie=True),
        ],
        parent="../1",
    )
    middle = ImageEntry(addr(1), 3), ImageEntry(addr(4), 4, PARENT)
    write_images(
        root / "1",
        [_task(7, *middle), _task(8, ImageEntry(BASE, 6, PRESENT), pages_id=2)],
        parent="../2",
    )
    write_images(root / "2", [_task(7, ImageEntry(BASE, 10, PRESENT))])


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Draw a tree that was valid before some things in it were changed, perhaps none."""
    tree = dict(draw(st.sampled_from(valid_trees())))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        # Where there is more to be wrong, more often.
        often = [name for name in tree if "/pagemap-" in name or "/mm-" in name]
        name = draw(st.sampled_from(sorted([*tree, *often, *often])))
        node = tree[name]
        if isinstance(node, File):
            _change_file(draw, tree, name, node)
        else:
            tree[name] = draw(LINKS)
    return tree


LINKS = st.one_of(
    st.sampled_from([".", "..", "../0", "../1", "../2", "../gone", "parent", "pstree.img"]).map(
        Link
    ),
    st.just(Special.DIRECTORY),
    st.just(Special.FIFO),
)


def _change_file(draw: st.DrawFn, tree: Tree, name: str, file: File) -> None:
    match draw(st.sampled_from(["record", "record", "bytes", "hole", "other", "gone"])):
        case "record":
            tree[name] = File(change_record(draw, file.data), file.hole)
        case "bytes":
            tree[name] = File(change_bytes(draw, file.data), file.hole)
        case "hole":
            tree[name] = File(file.data, draw(HOLES))
        case "other":
            other = draw(st.sampled_from(sorted(tree)))
            link = Link(Path(name).name), Link("../" + other), Special.DIRECTORY, Special.FIFO
            tree[name] = draw(st.sampled_from([*link, File(b""), tree[other]]))
        case "gone":
            del tree[name]
            # Nothing would be left to draw from.
            tree["0/inventory.img"] = tree.get("0/inventory.img", File(b""))


def change_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Overwrite, put in, take out or cut off some bytes of *data*."""
    at = draw(st.integers(0, min(len(data), 256)))
    if draw(st.booleans()):
        return data[:at]
    taken, put = draw(st.integers(0, 4)), draw(st.binary(max_size=4))
    return data[:at] + put + data[at + taken :]


def split_records(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return the magic numbers of an image file, and its records with their sizes.

    Of what is framed otherwise by now, the rest is one record.
    """
    start = 8 if data[:4] == b"\x19\x43\x56\x54" else 4
    records, at = [], start
    while at < len(data):
        size = 4 + int.from_bytes(data[at : at + 4], "little")
        records.append(data[at : at + size])
        at += size
    return data[:start], records


def change_record(draw: st.DrawFn, data: bytes) -> bytes:
    """Change one record of an image file, or its place among the others."""
    if len(data) > PAGE_SIZE - 1:  # a pages file has none
        return change_bytes(draw, data)
    head, records = split_records(data)
    if not records:
        return head + draw(st.binary(max_size=8))
    i = draw(st.integers(0, len(records) - 1))
    record = records[i]
    match draw(st.sampled_from(["field", "field", "payload", "size", "twice", "swap", "drop"])):
        case "field":
            payload = change_field(draw, record[4:])
            records[i] = U32.pack(len(payload)) + payload
        case "payload":
            payload = change_bytes(draw, record[4:])
            records[i] = U32.pack(len(payload)) + payload
        case "size":
            records[i] = U32.pack(draw(NUMBERS) & 0xFFFFFFFF) + record[4:]
        case "twice":
            records.insert(i, record)
        case "swap":
            records.append(records.pop(i))
        case "drop":
            del records[i]
    return head + b"".join(records)


def change_field(draw: st.DrawFn, payload: bytes) -> bytes:
    """Give a message one more field, which overrides an earlier one if that has its number."""
    number = draw(st.integers(1, 16) | st.sampled_from([2**29 - 1, 2**32]))
    kind = draw(st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]))
    field = varint(number << 3 | kind) + (
        varint(draw(NUMBERS)) if kind == 0 else draw(st.binary(max_size=12))
    )
    return payload + field


def varint(value: int) -> bytes:
    """Encode a number as protobuf does."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
