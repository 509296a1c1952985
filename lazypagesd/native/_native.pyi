from typing import Any

# What cffi hands out has the attributes that native.h declares: not known to a type checker.
class CData:
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: object) -> None: ...
    def __getitem__(self, index: int) -> Any: ...
    def __len__(self) -> int: ...

class Allocator:
    def __call__(self, cdecl: str, init: object = ...) -> CData: ...

class FFI:
    NULL: CData
    def new(self, cdecl: str, init: object = ...) -> CData: ...
    def new_allocator(self, *, should_clear_after_alloc: bool) -> Allocator: ...
    def from_buffer(self, cdecl: str, buffer: object) -> CData: ...
    def sizeof(self, cdecl: str | CData) -> int: ...

class Lib:
    LPD_ENTRY_PARENT: int
    LPD_ENTRY_LAZY: int
    LPD_ENTRY_PRESENT: int

    LPD_IMAGE_TRUNCATED: int
    LPD_IMAGE_PAST_FILE: int
    LPD_IMAGE_TOO_LONG: int
    LPD_IMAGE_VARINT: int
    LPD_IMAGE_UNKNOWN_FIELD: int
    LPD_IMAGE_WIRE_TYPE: int
    LPD_IMAGE_MISSING_FIELD: int
    LPD_IMAGE_NR_PAGES: int
    LPD_IMAGE_FLAGS: int
    LPD_IMAGE_UNALIGNED: int
    LPD_IMAGE_PAST_LIMIT: int
    LPD_IMAGE_UNSORTED: int
    LPD_IMAGE_NO_PARENT: int
    LPD_IMAGE_NOT_IN_PARENT: int
    LPD_IMAGE_NOT_PRESENT: int
    LPD_RECORD_MAX: int

    def lpd_pagemap_decode(self, map: CData, buf: CData, len: int, ret_error: CData) -> int: ...
    def lpd_chain_flatten(
        self, chain: CData, regions: CData, capacity: int, ret_error: CData, ret_nr_regions: CData
    ) -> int: ...

ffi: FFI
lib: Lib
