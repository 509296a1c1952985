"""Look for what breaks a property, guided by coverage, for as long as one likes.

Each target is a test of this directory: Hypothesis makes its arguments from the bytes that atheris
comes up with.  What is found is printed and kept twice: as bytes, to be given to --replay, and
among Hypothesis's own examples, with which the test itself begins from then on.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.seeds import write_seeds

TARGETS = {
    "images": "test_images:test_changed_images_load_right_or_are_refused",
    "pagemap": "test_pagemap:test_pieces_decode_as_the_whole_does",
    "flatten": "test_pagemap:test_flattening_of_anything_ends_and_stays_within_its_arrays",
    "handoff": "test_handoff:test_any_hand_off_is_taken_or_refused_and_leaves_no_descriptor",
    "native": "test_native_handoff:test_any_packets_are_taken_or_refused_and_leave_no_descriptor",
    "options": "test_options:test_any_words_and_file_are_options_or_refused",
    "state": "test_state:test_state_that_passes_its_check_can_be_gone_on_with",
}

# From the first on as long as any: the C shows no coverage by which longer ones could be earned.
LIMITS = "-rss_limit_mb=2048", "-max_len=1024", "-len_control=0"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    add = parser.add_argument
    add("--target", choices=TARGETS, default="images", help="what to try (%(default)s)")
    add("--seconds", type=int, default=600, help="for how long (%(default)s)")
    add(
        "--directory", type=Path, default=Path(".build/fuzz"), help="of what is kept (%(default)s)"
    )
    add("--replay", type=Path, help="the bytes of a finding, to be tried once")
    return parser.parse_args(arguments)


def property_of(target: str) -> Callable[[bytes], object]:
    """Return the function that tries a target's property on bytes."""
    module, name = TARGETS[target].split(":")
    test: Any = getattr(importlib.import_module(f"tests.fuzz.{module}"), name)
    try_bytes: Callable[[bytes], object] = test.hypothesis.fuzz_one_input
    return try_bytes


def fuzz(target: str, seconds: int, directory: Path) -> None:
    """Fuzz until *seconds* are over, which ends the process, or something is found."""
    try:
        atheris: Any = importlib.import_module("atheris")  # which has no types, where it is there
    except ImportError:
        raise SystemExit("atheris: not installed; pip install --group fuzz") from None
    corpus = write_seeds(directory / target)
    with atheris.instrument_imports(include=["lazypagesd"]):
        try_bytes = property_of(target)
    prefix = directory / f"{target}-"
    print(f"to replay: {sys.executable} -m tests.fuzz --target {target} --replay {prefix}...")
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={prefix}", "-timeout=20"]
    atheris.Setup([sys.argv[0], *flags, *LIMITS, str(corpus)], try_bytes)
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    options = parse(arguments)
    if options.replay is not None:
        property_of(options.target)(options.replay.read_bytes())
        print(f"{options.replay}: the property holds")
    else:
        fuzz(options.target, options.seconds, options.directory)


if __name__ == "__main__":
    main()
