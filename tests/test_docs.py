"""What the documentation names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows(text: str) -> list[str]:
    """Return the rows of the tables in *text*, but their heads."""
    lines = text.splitlines()
    tables = [i for i, line in enumerate(lines) if re.fullmatch(r"\|[-|]+\|", line)]
    heads = {i - 1 for i in tables} | set(tables)
    return [line for i, line in enumerate(lines) if line.startswith("|") and i not in heads]


@pytest.fixture(scope="module")
def failure_model(repository: Path) -> str:
    """The page."""
    return (repository / "docs/explanation/failure-model.md").read_text()


def test_each_row_of_the_failure_model_names_a_test(failure_model: str) -> None:
    """Nothing is claimed there that is not tried."""
    found = rows(failure_model)
    assert found
    assert [row for row in found if not TEST.search(row)] == []


def test_each_test_that_the_failure_model_names_exists(
    repository: Path, failure_model: str
) -> None:
    """It is a function of that file."""
    missing = [
        f"{path}::{name}"
        for path, name in TEST.findall(failure_model)
        if name not in functions_of(repository / path)
    ]
    assert missing == []


def functions_of(path: Path) -> set[str]:
    """Return the names of the functions in a file; none if there is none."""
    if not path.exists():
        return set()
    return {
        node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
    }
