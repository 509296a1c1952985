"""The data plane in C: `ffi` and `lib`, and nothing else. Only kernel/, engine/ and images/ import
it."""

from __future__ import annotations

from lazypagesd.native._native import ffi, lib

__all__ = ["ffi", "lib"]
