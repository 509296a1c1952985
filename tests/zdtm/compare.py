"""What came out with criu's daemon beside what came out with ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.zdtm.suite import PASSED


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdicts on the tests of one flavor, with either daemon."""

    flavor: str
    criu: Mapping[str, str]
    ours: Mapping[str, str]

    @property
    def both(self) -> list[str]:
        """Return the tests that pass with either."""
        return sorted(passed(self.criu) & passed(self.ours))

    @property
    def only_criu(self) -> list[str]:
        """Return the tests that pass with criu's daemon alone."""
        return sorted(passed(self.criu) - passed(self.ours))

    @property
    def only_ours(self) -> list[str]:
        """Return the tests that pass with our daemon alone."""
        return sorted(passed(self.ours) - passed(self.criu))

    def __str__(self) -> str:
        nr_run = len(self.criu.keys() | self.ours.keys())
        lines = [
            f"{self.flavor}: {nr_run} tests run, {len(self.both)} passed with both,"
            f" {len(self.only_criu)} only with criu, {len(self.only_ours)} only with lazypagesd"
        ]
        lines += describe("criu", self.only_criu, self.ours)
        lines += describe("lazypagesd", self.only_ours, self.criu)
        return "\n".join(lines)


def passed(verdicts: Mapping[str, str]) -> set[str]:
    """Return the tests that passed."""
    return {name for name, verdict in verdicts.items() if verdict == PASSED}


def describe(daemon: str, names: list[str], other: Mapping[str, str]) -> list[str]:
    """Return a line for each test that passed with *daemon* alone, and what the *other* got."""
    return [f"  only with {daemon}: {name}: {other.get(name, 'not run')}" for name in names]
