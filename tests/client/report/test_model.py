"""What is to be seen in a recording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lazypagesd.client.ctl.main import main
from lazypagesd.client.report.model import (
    COLUMNS,
    ROWS,
    Range,
    Span,
    growth_of,
    heat_of,
    ranges_of,
    working_sets,
)
from lazypagesd.client.report.page import page_of
from lazypagesd.client.report.recording import read
from tests.client.report.recordings import BASE, BEGAN, PAGE, fault, recording, step


def test_ranges_leave_gaps_out() -> None:
    """Pages that are near each other are one range, whatever their order."""
    near, far = BASE + 3 * PAGE, BASE + (1 << 30)
    assert ranges_of([far, near, BASE]) == [
        Range(BASE, near + PAGE),
        Range(far, far + PAGE),
    ]


def test_heat_has_each_fault_once() -> None:
    """In the cell of its time and address, the last moment included."""
    faults = [fault(0, 0), fault(0, 0), fault(1000, 49)]
    heat = heat_of(faults, Span.of(faults, 0))
    assert heat.cells == {(0, 0): 2, (COLUMNS - 1, 49 * ROWS // 50): 1}


def test_growth_is_by_reason() -> None:
    """What was filled until each moment: on demand, around it, unasked, and with zeros."""
    zero = fault(500, 1)
    del zero["source"]
    faults = [fault(0, 0), zero, fault(600, 2, outcome="woken")]
    steps = [step(100, "neighbour", 3, 15), step(1000, "drain", 20, 256), step(10, "unmap", 0, 1)]
    grown = growth_of(faults, steps, Span(BEGAN, BEGAN + 1000), 10)
    assert {reason: counts[-1] for reason, counts in grown.items()} == {
        "fault": 1,
        "neighbour": 15,
        "drain": 256,
        "zero": 1,
    }
    assert grown["zero"] == [0] * 5 + [1] * 5


def test_working_set_is_what_was_asked_for() -> None:
    """In the first moments; a page that was asked for twice is one."""
    faults = [fault(0, 0), fault(50_000, 1), fault(60_000, 1), fault(500_000, 7)]
    sets = working_sets(faults, Span.of(faults, 0))
    assert [each.nr_pages for each in sets] == [2, 3, 3]
    assert sets[0].ranges == [Range(BASE, BASE + 2 * PAGE)]


def test_page_of_nothing_is_a_page() -> None:
    """A restore of which nothing is on record."""
    text = page_of(recording([]))
    assert "restore 1 (web)" in text
    assert "None is on record." in text


def test_names_are_only_text() -> None:
    """Whatever a client has called its restore."""
    text = page_of(recording([fault(0, 0)], name="<script>alert(1)</script>"))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_page_stays_small() -> None:
    """With as many faults as two recorders have."""
    faults = [fault(i * 10, i * 7 % 65536) for i in range(131_072)]
    assert len(page_of(recording(faults))) < 1_000_000


def test_recording_is_read_back(tmp_path: Path) -> None:
    """As it was written."""
    made = recording([fault(0, 0)], [step(1, "fork", 0, 0, child="1/7.1")])
    path = tmp_path / "recording"
    path.write_text(made.to_json())
    assert read(path) == made


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", r"is no recording (Expecting property name"),
        ("[]", "is no recording of version 1"),
        (json.dumps({"version": 2}), "is no recording of version 1"),
        (json.dumps({"version": 1}), "is no whole recording (daemon is missing)"),
    ],
)
def test_file_that_is_none_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    """With its name, and how to make one."""
    path = tmp_path / "recording"
    path.write_text(text)
    assert main(["report", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"lazypagesctl: {path}: {reason}")
    assert error.endswith("make one with `lazypagesctl report ID --json`\n")
