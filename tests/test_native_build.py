"""The C compiles without a warning, and its tests pass when sanitized.

The build is made in a copy, so that the extension that is in use stays what it is.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

SANITIZERS = "address,undefined"
WHERE_NATIVE_IS = "import lazypagesd.native._native as native; print(native.__file__)"


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """Return a copy of what the build and the tests of native/ read, with nothing built in it."""
    unwanted = shutil.ignore_patterns("*.so", "_native.c", "__pycache__")
    for directory in "lazypagesd", "tests":
        shutil.copytree(repository / directory, tmp_path / directory, ignore=unwanted)
    for file in "pyproject.toml", "README.md", "LICENSE":
        shutil.copy(repository / file, tmp_path)
    return tmp_path


def compiler() -> str:
    """Return the C compiler, or skip."""
    for name in "cc", "gcc":
        if found := shutil.which(name):
            return found
    pytest.skip("no C compiler")


def build(copy: Path, environment: Mapping[str, str]) -> Path:
    """Build the extension in *copy*; return the file that it is."""
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()"]
    run([*command, "-q", "build_ext", "--inplace"], copy, environment)
    (built,) = (copy / "lazypagesd/native").glob("_native*.so")
    return built


def run(command: list[str], directory: Path, environment: Mapping[str, str]) -> str:
    """Return what *command* prints; when it fails, that is the failure message."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout


def test_native_compiles_without_warnings(repository: Path, tmp_path: Path) -> None:
    """Each .c file passes -Werror with the warnings that the build asks for.

    Without cffi's wrappers, which are not ours and do not pass.
    """
    native = repository / "lazypagesd/native"
    warnings = runpy.run_path(str(native / "build.py"))["WARNINGS"]
    flags = ["-std=gnu17", "-O2", *warnings, "-Werror", "-fPIC", "-c"]
    sources = [path for path in native.glob("*.c") if path.name != "_native.c"]
    assert sources
    run([compiler(), *flags, *map(str, sources)], tmp_path, {})


@pytest.mark.timeout(600)
def test_native_tests_pass_when_sanitized(copy: Path) -> None:
    """The tests of native/ find no bad memory access and no undefined behaviour."""
    libasan = compiler_file(copy, "libasan.so")
    if libasan is None:
        pytest.skip("libasan.so: not installed beside the compiler")
    built = build(copy, {"LAZYPAGESD_SANITIZE": SANITIZERS})
    symbols = run(["nm", "-D", "--undefined-only", str(built)], copy, {})
    assert "__asan_init" in symbols
    assert "__ubsan_handle" in symbols
    environment = {
        # The interpreter is not sanitized, so the runtime has to be there before it; it leaks at
        # exit, by design.
        "LD_PRELOAD": str(libasan),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(copy),
    }
    imported = run([sys.executable, "-c", WHERE_NATIVE_IS], copy, environment)
    assert imported.strip() == str(built)
    if not list((copy / "tests/native").glob("test_*.py")):
        pytest.skip("tests/native: there are none yet")
    # Only tests/native, so this test, which lies beside it, cannot start itself again.
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run([*pytest_command, "tests/native"], copy, environment)


def compiler_file(directory: Path, name: str) -> Path | None:
    """Return the library *name* that the compiler would link, if it has it."""
    found = Path(run([compiler(), f"-print-file-name={name}"], directory, {}).strip())
    return found if found.is_absolute() else None
