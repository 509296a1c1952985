"""inventory.img: what kind of images these are, and whether we can serve them at all."""

from __future__ import annotations

from lazypagesd.errors import ImageError
from lazypagesd.images import wire
from lazypagesd.images.directory import ImageDirectory
from lazypagesd.images.framing import Framing, ImageFile, Magic

INVENTORY = "inventory.img"
# Some hundred bytes are usual.  Unknown fields become Python objects, of thirty times their size.
INVENTORY_MAX = 1 << 20


def load_framing(directory: ImageDirectory) -> Framing:
    """Return how the files of *directory* are framed; ImageError if they cannot be served."""
    with ImageFile(directory, INVENTORY) as image:
        image.read_magic(Magic.INVENTORY, Framing.V1_1)
        offset, payload = image.read_only_record(INVENTORY_MAX)
        entry = wire.parse(wire.inventory_entry, payload, image.name, offset)
        # Before the unknown fields: a version that we do not have explains them.
        if entry.img_version not in set(Framing):
            what = (
                f"img_version {entry.img_version}, of which only 1 and 2 are known; cannot serve"
            )
            raise ImageError(image.name, what, offset=offset)
        wire.refuse_unknown(entry, image.name, offset)
        if not entry.fdinfo_per_id:
            what = "fdinfo_per_id is false: written by a CRIU too old to be served"
            raise ImageError(image.name, what, offset=offset)
    return Framing(entry.img_version)


def load_parent_framing(directory: ImageDirectory, child: Framing) -> Framing:
    """Return how the files of a parent *directory* are framed.

    One from a CRIU whose pre-dump wrote no inventory is taken to be framed as its child: one CRIU
    wrote both.
    """
    return load_framing(directory) if directory.has(INVENTORY) else child
