"""The report on a real restore by a real CRIU, in a real browser."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from lazypagesd.client.ctl.main import main
from tests.client.report import browser
from tests.criu.conftest import bed, criu, lazy_pages_command, victims
from tests.criu.harness import Bed
from tests.criu.test_serve import command, server
from tests.service.asking import admin_path
from tests.service.serving import Server

__all__ = ["bed", "criu", "lazy_pages_command", "server", "victims"]

pytestmark = [pytest.mark.criu, pytest.mark.root, pytest.mark.browser]

WIDTH, HEIGHT = 1100, 900
PAPER = (253, 253, 251)


@pytest.fixture
def report(bed: Bed, server: Server, victims: Path, tmp_path: Path) -> Path:
    """The report on a process that forked and moved its memory while it was filled, and slowly: at
    full speed there may be little left to fault at."""
    bed.start(victims / "churn", 64, 0.5, "mgudwwlp")
    bed.dump()
    bed.go()
    subprocess.run(
        command(
            bed,
            server,
            "--criu",
            str(bed.criu),
            "--pace",
            "64M",
            "--",
            *bed.restore_options(),
            verb="restore",
        ),
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert bed.tally("churn").nr_wrong == 0
    recording, page = tmp_path / "recording.json", tmp_path / "report.html"
    words = ["--socket", str(admin_path(server))]
    assert main(["report", "1", "--json", "-o", str(recording), *words]) == 0
    assert main(["report", str(recording), "-o", str(page), *words]) == 0
    return page


def test_browser_shows_the_report(report: Path, tmp_path: Path) -> None:
    """All of it, without a word of complaint, and with colour where faults were."""
    seen = browser.document(report)
    assert "<h1>restore 1 (criu)</h1>" in seen
    headings = re.findall("<h2>([^<]*)</h2>", seen)
    assert headings == [
        "Faults over time and address",
        "Filled over time",
        "Latency",
        "Working set",
        "Sessions",
        "Events",
        "All that was counted",
    ]
    assert len(re.findall("<svg", seen)) == 3
    assert not re.search(r"(?:src|href)=", seen), "it needs nothing else"
    assert browser.console(report, tmp_path) == ""
    picture = browser.screenshot(report, tmp_path / "light.png", WIDTH, HEIGHT)
    assert (picture.width, picture.at(5, 5)) == (WIDTH, PAPER)
    assert nr_blue(picture) > 300


def nr_blue(picture: browser.Picture) -> int:
    """Return how many pixels have one of the heat map's colours, which are blue."""
    return sum(
        blue > red + 40 and blue > green
        for y in range(0, picture.height, 2)
        for red, green, blue in (picture.at(x, y) for x in range(0, picture.width, 2))
    )


def test_dark_browser_has_a_dark_page(report: Path, tmp_path: Path) -> None:
    """As its user has asked for."""
    dark = browser.screenshot(
        report, tmp_path / "dark.png", WIDTH, HEIGHT, "--blink-settings=preferredColorScheme=0"
    )
    assert max(dark.at(5, 5)) < 60
