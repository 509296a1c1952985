"""A copy of the package whose C is sanitized, and the interpreter that can load it.

Some facts: Python itself is not sanitized, so the sanitizer's runtime has to be there before it
(LD_PRELOAD).  Programs that were built without it do not bear ThreadSanitizer's.

ThreadSanitizer sees the memory accesses of our C alone, and each call to libc that touches memory
or synchronizes, whoever makes it: so what Python does between its own threads is known to be in
order, and no report needs suppressing.  It does not see what Python reads through a pointer of
cffi's.  A read of an eventfd comes after the write to it, so that what an eventfd orders is no
race to it, however weak the atomics beside it are.

GCC 12's has a fixed idea of where memory lies, which address randomization may not keep to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
ADDRESS = "address,undefined"
THREAD = "thread"
# Of each, the library that is to be loaded first.
RUNTIMES = {ADDRESS: "libasan.so", THREAD: "libtsan.so"}
# What shows in the symbols of an extension that is sanitized so.
TRACES = {ADDRESS: ("__asan_init", "__ubsan_handle"), THREAD: ("__tsan_init",)}
OPTIONS = {
    # Python leaks at exit, by design.
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    # Every race is told of, and the process fails when it ends.  Python runs its signal handlers
    # later, not in the signal.
    "TSAN_OPTIONS": "halt_on_error=0 report_signal_unsafe=0 exitcode=66",
}
WHERE_NATIVE_IS = "import lazypagesd.native._native as native; print(native.__file__)"


class MissingRuntime(Exception):
    """The sanitizer is not there, or does not run here."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How Python is run so that it imports the package and the tests in *directory*."""

    directory: Path = REPOSITORY
    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """Return the command that runs Python with *arguments*."""
        return [*self.prefix, sys.executable, *arguments]

    @property
    def whole_environment(self) -> dict[str, str]:
        """The environment that it is run in."""
        return os.environ | dict(self.environment)

    def run(self, *arguments: str | Path) -> str:
        """Return what it prints; when it fails, that is the failure message."""
        return run(self.command(*arguments), self.directory, self.environment)


def build_sanitized(sanitizers: str, directory: Path) -> Interpreter:
    """Build a copy of the package in *directory*, with *sanitizers*: a key of RUNTIMES.

    Raises MissingRuntime where such code cannot be built or run.
    """
    copy_package(directory)
    interpreter = sanitized_interpreter(sanitizers, directory)
    built = build(interpreter, {"LAZYPAGESD_SANITIZE": sanitizers})
    symbols = run(["nm", "-D", "--undefined-only", built], directory, {})
    assert all(trace in symbols for trace in TRACES[sanitizers]), symbols
    return interpreter


def build(interpreter: Interpreter, environment: Mapping[str, str]) -> Path:
    """Build the copy that *interpreter* loads, with *environment*; return its data plane."""
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()"]
    directory = interpreter.directory
    run([*command, "-q", "build_ext", "--inplace"], directory, environment)
    (built,) = (directory / "lazypagesd/native").glob("_native*.so")
    assert interpreter.run("-c", WHERE_NATIVE_IS).strip() == str(built)
    return built


def sanitized_interpreter(sanitizers: str, directory: Path) -> Interpreter:
    """Return what runs a copy in *directory* that is built with *sanitizers*."""
    runtime = RUNTIMES[sanitizers]
    found = Path(run([compiler(), f"-print-file-name={runtime}"], directory, {}).strip())
    if not found.is_absolute():
        raise MissingRuntime(f"{runtime}: not installed beside the compiler")
    interpreter = Interpreter(
        directory,
        # -R: without address randomization.
        prefix=("setarch", "-R") if sanitizers == THREAD else (),
        environment=OPTIONS | {"LD_PRELOAD": str(found), "PYTHONPATH": str(directory)},
    )
    try:
        interpreter.run("-c", "")
    except AssertionError as error:
        raise MissingRuntime(f"{runtime}: does not run here: {error}") from None
    return interpreter


def copy_package(directory: Path) -> None:
    """Copy what the build and the tests read, with nothing built in it."""
    unwanted = shutil.ignore_patterns("*.so", "_native.c", "__pycache__")
    for name in "lazypagesd", "tests":
        shutil.copytree(REPOSITORY / name, directory / name, ignore=unwanted)
    for name in "pyproject.toml", "README.md", "LICENSE":
        shutil.copy(REPOSITORY / name, directory)


def compiler() -> str:
    """Return the C compiler; raises MissingRuntime without one."""
    for name in "cc", "gcc":
        if found := shutil.which(name):
            return found
    raise MissingRuntime("no C compiler")


def run(command: Sequence[str | Path], directory: Path, environment: Mapping[str, str]) -> str:
    """Return what *command* prints; when it fails, that is the failure message."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout
