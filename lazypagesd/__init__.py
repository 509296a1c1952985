"""lazypagesd feeds memory, page by page, to processes that are restored while they already run."""

from __future__ import annotations

__version__ = "0.1.0"
