"""What is not passed on to CRIU, because it is given already."""

from __future__ import annotations

import pytest

from lazypagesd.client.ctl.criu_options import find_ours


@pytest.mark.parametrize(
    "word",
    [
        *("-D", "-Dimg", "-dD", "-W", "-Wwork"),
        *("--images-dir", "--images-dir=img", "--im", "--work", "--work-dir=."),
        *("--lazy-pages", "--lazy"),
    ],
)
def test_option_of_ours_is_found(word: str) -> None:
    """It is found however it is written."""
    assert find_ours(["-d", word, "x"]) == word


@pytest.mark.parametrize(
    "words",
    [
        ["-d", "-v4", "-o", "restore.log", "--shell-job", "--pidfile", "pid", "-RS"],
        ["--leave-stopped", "--inherit-fd", "fd[1]:x", "--weak-sysctls", "--log-file", "x"],
        ["-oD", "-o", "W", "--link-remap"],
        ["--exec-cmd", "--", "tool", "-D", "x"],
        [],
    ],
)
def test_other_options_are_left_alone(words: list[str]) -> None:
    """What is criu's own, or a command's behind a further --, is passed on."""
    assert find_ours(words) is None
