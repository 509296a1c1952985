"""What `make fuzz` runs, without the fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import TARGETS, main, property_of
from tests.fuzz.seeds import NR_SEEDS, write_seeds

ON_A_USERFAULTFD = {"handoff", "native"}
ALL = [
    pytest.param(target, marks=pytest.mark.uffd if target in ON_A_USERFAULTFD else ())
    for target in sorted(TARGETS)
]


@pytest.mark.parametrize("target", ALL)
def test_seeds_hold_and_are_arguments_of_every_target(tmp_path: Path, target: str) -> None:
    """Each target takes the bytes that fuzzing begins with, and some of them are enough for it."""
    try_bytes = property_of(target)
    seeds = sorted(write_seeds(tmp_path).iterdir())
    assert len(seeds) == NR_SEEDS
    assert any(try_bytes(seed.read_bytes()) is not None for seed in seeds[:8])


def test_replay_tries_the_bytes_of_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no longer breaks anything is said to hold."""
    finding = tmp_path / "crash"
    finding.write_bytes(bytes(64))
    main(["--target", "options", "--replay", str(finding)])
    assert "the property holds" in capsys.readouterr().out


def test_replay_raises_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What still breaks the property ends in its traceback."""
    finding = tmp_path / "crash"
    finding.write_bytes(bytes(64))

    def accept(directory: object) -> None:
        raise AssertionError("found")

    monkeypatch.setattr("tests.fuzz.test_options.check_options", accept)
    with pytest.raises(AssertionError, match="found"):
        main(["--target", "options", "--replay", str(finding)])
