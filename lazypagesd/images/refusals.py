"""What the C side refuses, in words: one table from its codes to ImageError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lazypagesd.errors import ImageError
from lazypagesd.native import ffi, lib

if TYPE_CHECKING:
    from lazypagesd.native._native import CData

NEWER = ": written by a newer CRIU; cannot serve"
WORDS = {
    lib.LPD_IMAGE_TRUNCATED: "ends inside the size of a record ({0} bytes left): it was cut off",
    lib.LPD_IMAGE_PAST_FILE: "record of {0} bytes runs past the file: the file was cut off",
    lib.LPD_IMAGE_TOO_LONG: "record of {0} bytes is longer than any pagemap entry; cannot serve",
    lib.LPD_IMAGE_VARINT: "number cut off, or longer than 64 bits, in pagemap entry",
    lib.LPD_IMAGE_UNKNOWN_FIELD: f"field {{0}} of pagemap entry is not known{NEWER}",
    lib.LPD_IMAGE_WIRE_TYPE: f"field {{0}} of pagemap entry is of another type{NEWER}",
    lib.LPD_IMAGE_MISSING_FIELD: "pagemap entry without its required field {0}",
    lib.LPD_IMAGE_NR_PAGES: "pagemap entry of {0} pages",
    lib.LPD_IMAGE_FLAGS: f"flags {{0:#x}} of pagemap entry are not known{NEWER}",
    lib.LPD_IMAGE_UNALIGNED: "address {0:#x} of pagemap entry is not aligned to pages",
    lib.LPD_IMAGE_PAST_LIMIT: "pagemap entry {0:#x} runs past the user's addresses",
    lib.LPD_IMAGE_UNSORTED: "pagemap entry {0:#x} begins before the one before it ends",
    lib.LPD_IMAGE_NO_PARENT: "page {0:#x} is to be in a parent image, and this process has none",
    lib.LPD_IMAGE_NOT_IN_PARENT: "page {0:#x} is missing, needed by the image that builds on this",
    lib.LPD_IMAGE_NOT_PRESENT: (
        "page {0:#x} was left at its source by `criu dump --lazy-pages`: "
        "--page-server is needed, or a dump without --lazy-pages"
    ),
}
# Those of flattening: the trouble is at an address, not at an offset.
ADDRESSED = {
    lib.LPD_IMAGE_NO_PARENT,
    lib.LPD_IMAGE_NOT_IN_PARENT,
    lib.LPD_IMAGE_NOT_PRESENT,
}


def new_error() -> CData:
    """Return a struct for the C side to say what it refuses in."""
    return ffi.new("struct lpd_image_error *")


def check(result: int, error: CData, names: Sequence[str]) -> None:
    """Raise ImageError unless *result* is 0; *names* are the pagemap files of the levels."""
    if result == 0:
        return
    # The only other result is -ENOSPC: a pass that found more than the one that counted.
    if not error.fault:
        raise ImageError(names[0], "changed while it was read")
    offset = None if error.fault in ADDRESSED else int(error.offset)
    raise ImageError(names[error.level], WORDS[error.fault].format(error.value), offset=offset)
