"""The C compiles without a warning."""

from __future__ import annotations

import runpy
from pathlib import Path

from tests.sanitizers import compiler, run


def test_native_compiles_without_warnings(repository: Path, tmp_path: Path) -> None:
    """Each .c file passes -Werror with the warnings that the build asks for.

    Without cffi's wrappers, which are not ours and do not pass.
    """
    native, client = repository / "lazypagesd/native", repository / "lazypagesd/client"
    warnings = runpy.run_path(str(native / "build.py"))["WARNINGS"]
    flags = ["-std=gnu17", "-O2", *warnings, "-Werror", "-fPIC", "-c"]
    sources = [path for path in native.glob("*.c") if path.name != "_native.c"]
    assert sources
    keeper = repository / "lazypagesd/keeper/keeper.c"
    run([compiler(), *flags, *sources, client / "channel_all.c", keeper], tmp_path, {})
