"""How the data plane is compiled: every .c file here, as one cffi extension in API mode.

The declarations of native.h are the whole boundary: cffi reads them, and the C includes them, so a
signature that disagrees does not compile. Neither the package nor cffi's output is imported here;
setuptools loads this file by path.

LAZYPAGESD_CFLAGS adds compiler flags (-Werror in CI), LAZYPAGESD_SANITIZE=address,undefined (or
thread) links the sanitizers in.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cffi import FFI
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
# What goes over a channel, which a process that uses one includes as well.
WIRE = HERE.parent / "client/wire.h"
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wmissing-prototypes", "-Wvla"]
# What cffi generates is not ours to mend; these bind the generated file alone.
GENERATED = """\
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
"""


def declarations() -> str:
    """Return native.h without its preprocessor lines: what cffi parses."""
    lines = (HERE / "native.h").read_text().splitlines()
    return "\n".join("" if line.lstrip().startswith("#") else line for line in lines)


def builder() -> FFI:
    """Return the cffi builder of lazypagesd.native._native."""
    flags = ["-std=gnu17", "-O2", "-g", *WARNINGS]
    flags += shlex.split(os.environ.get("LAZYPAGESD_CFLAGS", ""))
    link: list[str] = []
    if sanitize := os.environ.get("LAZYPAGESD_SANITIZE"):
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
        link = [f"-fsanitize={sanitize}"]
    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source(
        "lazypagesd.native._native",
        GENERATED + '#include "native.h"\n',
        sources=[
            os.path.relpath(path) for path in sorted(HERE.glob("*.c")) if path.stem != "_native"
        ],
        depends=[os.path.relpath(path) for path in sorted([*HERE.glob("*.h"), WIRE])],
        include_dirs=[os.path.relpath(HERE)],
        extra_compile_args=flags,
        extra_link_args=link,
    )
    return ffi


class BuildNative(build_ext):
    """Swap the placeholder extension of pyproject.toml for the one that cffi generates."""

    def finalize_options(self) -> None:
        self.distribution.ext_modules = [builder().distutils_extension(tmpdir="build/native")]
        super().finalize_options()
