"""What every owner of a descriptor has: close(), and with it the context manager."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """An object that is closed when a ``with`` block ends."""

    @abstractmethod
    def close(self) -> None:
        """Give up what it owns."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it, whatever has happened."""
        self.close()
