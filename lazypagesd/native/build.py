"""How the C is compiled: three cffi extensions in API mode, none of which knows another.

The data plane is every .c file here, and native.h the whole boundary; the library of a process
that uses a channel is client/channel_all.c, and channel.h its boundary; the keeper is keeper.c and
keeper.h.  cffi reads the header,
and the C includes it, so a signature that disagrees does not compile. Neither the package nor
cffi's output is imported here; setuptools loads this file by path.

LAZYPAGESD_CFLAGS adds flags for compiler and linker (-fno-lto for a linker that cannot), and
LAZYPAGESD_SANITIZE=address,undefined (or thread) links the sanitizers in.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from cffi import FFI
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
CLIENT = HERE.parent / "client"
KEEPER = HERE.parent / "keeper"
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wmissing-prototypes", "-Wvla"]
# What cffi generates is not ours to mend; these bind the generated file alone.
GENERATED = """\
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
"""


def declarations(header: Path, seen: set[Path] | None = None) -> str:
    """Return what cffi parses: *header* and, each once, those beside it that it includes, without
    their preprocessor lines."""
    seen = set() if seen is None else seen
    seen.add(header)
    text = []
    for line in header.read_text().splitlines():
        if included := re.match('#include "(.*)"', line):
            part = header.parent / included[1]
            text += [] if part in seen else [declarations(part, seen)]
        elif not line.lstrip().startswith("#"):
            text.append(line)
    return "\n".join(text)


def extension(name: str, header: Path, sources: Iterable[Path], depends: Iterable[Path]) -> FFI:
    """Return the cffi builder of the module *name*, whose boundary is *header*."""
    flags = ["-std=gnu17", "-O2", "-g", "-fvisibility=hidden", *WARNINGS]
    # The way of a fault goes through a dozen files, and most of what it calls there is short.
    link = ["-flto=auto"]
    if sanitize := os.environ.get("LAZYPAGESD_SANITIZE"):
        flags += ["-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
        link = [f"-fsanitize={sanitize}"]
    link += shlex.split(os.environ.get("LAZYPAGESD_CFLAGS", ""))
    ffi = FFI()
    ffi.cdef(declarations(header))
    ffi.set_source(
        name,
        f'{GENERATED}#include "{header.name}"\n',
        sources=[os.path.relpath(path) for path in sorted(sources)],
        depends=[os.path.relpath(path) for path in sorted(depends)],
        include_dirs=[os.path.relpath(header.parent)],
        extra_compile_args=flags + link,
        extra_link_args=link,
    )
    return ffi


def data_plane() -> FFI:
    """Return the cffi builder of lazypagesd.native._native."""
    sources = [path for path in HERE.glob("*.c") if path.stem != "_native"]
    depends = [*HERE.glob("*.h"), CLIENT / "wire.h"]
    return extension("lazypagesd.native._native", HERE / "native.h", sources, depends)


def channel() -> FFI:
    """Return the cffi builder of lazypagesd.client._channel."""
    sources = [CLIENT / "channel_all.c"]
    depends = CLIENT.glob("*.[ch]")
    return extension("lazypagesd.client._channel", CLIENT / "channel.h", sources, depends)


def keeper() -> FFI:
    """Return the cffi builder of lazypagesd.keeper._keeper."""
    sources, header = [KEEPER / "keeper.c"], KEEPER / "keeper.h"
    return extension("lazypagesd.keeper._keeper", header, sources, [header])


class BuildNative(build_ext):
    """Swap the placeholder extension of pyproject.toml for those that cffi generates."""

    def finalize_options(self) -> None:
        self.distribution.ext_modules = [
            data_plane().distutils_extension(tmpdir="build/native"),
            channel().distutils_extension(tmpdir="build/client"),
            keeper().distutils_extension(tmpdir="build/keeper"),
        ]
        super().finalize_options()
