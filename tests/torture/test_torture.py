"""Rounds of torture that everybody runs; `make torture` runs them for as long as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.__main__ import parse, replay, settings_of
from tests.torture.rounds import Settings, compile_torture, run_round

pytestmark = pytest.mark.uffd


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled process."""
    return compile_torture(tmp_path_factory.mktemp("torture"))


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        pytest.param(1, Settings(seconds=1, nr_threads=4), id="everything"),
        pytest.param(2, Settings(seconds=1, nr_threads=8, size_mib=128), id="many-threads"),
        pytest.param(3, Settings(seconds=1, nr_threads=2, cold=True), id="cold"),
        pytest.param(4, Settings(seconds=1, nr_processes=3, size_mib=64), id="processes"),
        pytest.param(
            5,
            Settings(seconds=1, nr_threads=8, size_mib=128, operations="msc"),
            id="shrinking-moves",
        ),
        pytest.param(
            6,
            Settings(seconds=1, nr_threads=8, operations="numogsydfkalpPcwrW|"),
            id="one-address-space",
        ),
    ],
)
def test_no_page_is_wrong(program: Path, tmp_path: Path, seed: int, settings: Settings) -> None:
    """Every page holds what it must, whatever threads and children do meanwhile."""
    result = run_round(program, tmp_path / "round", seed, settings)
    assert not result.finding, result.finding
    assert result.nr_operations > 100


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="dropin"),
        pytest.param(["--sanitize", "thread"], id="sanitized"),
    ],
)
def test_replay_command_names_the_settings_of_the_round(words: list[str]) -> None:
    """What is printed with a finding leads to the same round."""
    options = parse(["--vary", "--seed", "14", *words])
    settings = settings_of(options, 14)
    again = parse(replay(options, settings, 14).split()[3:])
    assert settings_of(again, 14) == settings
    assert again.sanitize == options.sanitize
