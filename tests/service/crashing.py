"""Daemons that kill themselves at a chosen point; the next one, started by the same command, goes
on."""

from __future__ import annotations

from pathlib import Path

from tests.sanitizers import Interpreter, build, copy_package


def build_with_crash_points(directory: Path) -> Interpreter:
    """Build a copy of the package in *directory* whose C dies where it is told to: see crash.c."""
    copy_package(directory)
    interpreter = Interpreter(directory, environment={"PYTHONPATH": str(directory)})
    build(interpreter, {"LAZYPAGESD_CFLAGS": "-DLPD_CRASH_POINTS"})
    return interpreter
