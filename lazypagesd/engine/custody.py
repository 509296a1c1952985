"""What keeps descriptors open when the daemon dies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from lazypagesd.keeper import Keeper


class Custody(Protocol):
    """Keeps descriptors for the daemon that comes next, which finds them under their numbers."""

    @property
    def keeper(self) -> Keeper | None:
        """The process that has them, too; without one, nothing is kept."""

    def keep(self, fds: Iterable[int]) -> None:
        """Return when *fds* will outlive this process.

        Raises SessionError if they would not: there is room for no more.
        """

    def drop(self, fds: Iterable[int]) -> None:
        """Keep *fds*, which are about to be closed, no longer."""

    def arm(self) -> None:
        """Have another daemon come if this one dies, from now on."""

    def release(self) -> None:
        """Let no other daemon come any more."""


class NoCustody:
    """The custody of a daemon whose descriptors end with it."""

    keeper = None

    def keep(self, fds: Iterable[int]) -> None:
        """Do nothing."""

    def drop(self, fds: Iterable[int]) -> None:
        """Do nothing."""

    def arm(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""
