"""How the demo gets a process to disk and back: the seam between CRIU and the built-in way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from lazypagesd.demo.victim import Victim


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of one checkpoint."""

    images: Path
    work: Path

    def size(self) -> int:
        """Return what the images take."""
        return sum(path.stat().st_size for path in self.images.iterdir() if path.is_file())


class Checkpoints(ABC):
    """A way to checkpoint and restore the victim."""

    name: str

    @abstractmethod
    def checkpoint(self, victim: Victim, place: Place) -> None:
        """Write *victim* to *place* and end it."""

    @abstractmethod
    def restore(self, victim: Victim, place: Place) -> Victim:
        """Bring *victim* back, without its memory: a lazy-pages daemon serves that of *place*.

        Returns when the process runs.
        """
