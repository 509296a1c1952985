"""What a case is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.bench import Bench
from tests.bench.race import Outcome


@dataclass(frozen=True, slots=True)
class Case:
    """A row, or some, of the table: *what* it measures, in a sentence for people."""

    name: str
    what: str
    run: Callable[[Bench], Outcome]
    needs_criu: bool = False
