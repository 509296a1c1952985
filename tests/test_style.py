"""How the code must read, as far as a tool can tell."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

MOST_LINES_OF_C = 3090
# What decodes and flattens pagemaps runs at load, and is no part of the data plane.  What stands
# in for a userfaultfd, what is done about a daemon that died, and what is put on record is counted
# by itself; so is how one dies in a test, which is in no other build.
COUNTED_APART = {"channel.c": 280, "takeover.c": 125, "recorder.c": 180, "crash.c": 40}
NOT_COUNTED = {"_native.c", "pagemap.c", "flatten.c", *COUNTED_APART}


def run(repository: Path, *command: str) -> None:
    """Run *command* in the repository; what it prints is the failure message."""
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def c_files(repository: Path) -> list[Path]:
    """Return every .c and .h that a person wrote."""
    places = "lazypagesd", "tests", "docs"
    found = [path for place in places for path in (repository / place).rglob("*.[ch]")]
    return sorted(path for path in found if path.name != "_native.c")


def test_ruff_has_no_complaint(repository: Path) -> None:
    """`ruff check` passes."""
    run(repository, sys.executable, "-m", "ruff", "check", "--quiet", ".")


def test_python_is_formatted(repository: Path) -> None:
    """`ruff format` would change nothing."""
    run(repository, sys.executable, "-m", "ruff", "format", "--quiet", "--diff", ".")


@pytest.mark.timeout(300)
def test_types_are_right(repository: Path) -> None:
    """`mypy --strict` passes over the package, its tests, and the examples."""
    run(repository, sys.executable, "-m", "mypy", "--no-error-summary")


def test_c_is_formatted(repository: Path) -> None:
    """`clang-format` would change nothing."""
    scripts = sysconfig.get_path("scripts")
    tool = shutil.which("clang-format", path=scripts) or shutil.which("clang-format")
    if tool is None:
        pytest.skip("clang-format: not installed")
    run(repository, tool, "--dry-run", "-Werror", *map(str, c_files(repository)))


def test_c_stays_small(repository: Path) -> None:
    """The data plane has at most 3,090 lines of code; beyond them, ask what it is doing there."""
    native = repository / "lazypagesd" / "native"
    lines = {
        path.name: nr_lines_of_code(path)
        for path in native.glob("*.c")
        if path.name not in NOT_COUNTED
    }
    assert lines
    assert sum(lines.values()) <= MOST_LINES_OF_C, lines
    for name, most_lines in COUNTED_APART.items():
        assert nr_lines_of_code(native / name) <= most_lines


def nr_lines_of_code(path: Path) -> int:
    """Count what the compiler reads: neither comments, as they are welcome, nor blank lines."""
    code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    return sum(bool(line.strip()) for line in code.splitlines())
