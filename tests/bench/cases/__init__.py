"""Every case, in the order of the table."""

from __future__ import annotations

from tests.bench.case import Case
from tests.bench.cases import calls, drain, faults, growth, many, ready, restored

CASES: tuple[Case, ...] = (
    *restored.CASES,
    *faults.CASES,
    *drain.CASES,
    *many.CASES,
    *ready.CASES,
    *calls.CASES,
    *growth.CASES,
)
