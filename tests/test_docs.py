"""What the documentation names is there, and what is there is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lazypagesd.service.metrics.families import FAMILIES

TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")

LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


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


def test_links_lead_to_files(repository: Path) -> None:
    """From the README and every page."""
    pages = [repository / "README.md", *(repository / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(repository)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_page_can_be_found(repository: Path) -> None:
    """The README, or a page that it leads to, leads there."""
    seen, new = set(), {repository / "README.md"}
    while new:
        page = new.pop()
        seen.add(page)
        targets = LINK.findall(page.read_text())
        new |= {p for p in ((page.parent / t).resolve() for t in targets) if p.suffix == ".md"}
        new -= seen
    assert set((repository / "docs").rglob("*.md")) - seen == set()


def test_every_metric_is_in_the_page_about_monitoring(repository: Path) -> None:
    """By its name, and no others; histograms are no families of the list."""
    page = (repository / "docs/howto/monitor.md").read_text()
    told = {name for row in rows(page) for name in re.findall("`([^`]+)`", row.split("|")[1])}
    assert told == {family.name for family in FAMILIES} | {"fault_latency_seconds"}
