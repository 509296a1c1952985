"""CRIU's protobuf messages: the only module that knows the generated ones."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from lazypagesd.errors import ImageError
from lazypagesd.images.pb.inventory_pb2 import inventory_entry
from lazypagesd.images.pb.mm_pb2 import mm_entry, vma_entry
from lazypagesd.images.pb.pagemap_pb2 import pagemap_entry, pagemap_head
from lazypagesd.images.pb.pstree_pb2 import core_entry, pstree_entry, task_core_entry

__all__ = [
    "core_entry",
    "inventory_entry",
    "mm_entry",
    "pagemap_entry",
    "pagemap_head",
    "parse",
    "pstree_entry",
    "refuse_unknown",
    "task_core_entry",
    "vma_entry",
]

M = TypeVar("M", bound=Message)


def parse(kind: type[M], payload: bytes, name: str, offset: int) -> M:
    """Return *payload*, which is at *offset* of file *name*; ImageError if it is no *kind*."""
    try:
        message = kind.FromString(payload)
    except DecodeError as error:
        what = f"not a {kind.DESCRIPTOR.name} of {len(payload)} bytes ({error})"
        raise ImageError(name, what, offset=offset) from None
    # Not every implementation of protobuf looks for required fields by itself.
    if not message.IsInitialized():
        what = f"{kind.DESCRIPTOR.name} of {len(payload)} bytes lacks a required field"
        raise ImageError(name, what, offset=offset)
    return message


def refuse_unknown(message: Message, name: str, offset: int) -> None:
    """Raise ImageError if *message* has a field that we do not know.

    What it says may change the meaning of those that we do know.
    """
    unknown = UnknownFieldSet(message)
    if len(unknown):
        what = (
            f"field {unknown[0].field_number} of {message.DESCRIPTOR.name} is not known: "
            "written by a newer CRIU; cannot serve"
        )
        raise ImageError(name, what, offset=offset)
