"""A real browser that looks at a page, and what it has seen."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = "chromium", "chromium-browser", "google-chrome"


def find() -> str:
    """Return the program; skip the test where there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    pytest.skip("chromium: not installed")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """Run it without a screen, and without a network."""
    # It wants no sandbox for root, and little of /dev/shm.
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    flags += ["--hide-scrollbars", "--no-first-run", "--proxy-server=127.0.0.1:9"]
    done = subprocess.run(
        [find(), *flags, *options], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels, three bytes each, row by row."""

    width: int
    height: int
    pixels: bytes

    def at(self, x: int, y: int) -> tuple[int, int, int]:
        """Return a pixel's red, green and blue."""
        place = 3 * (y * self.width + x)
        red, green, blue = self.pixels[place : place + 3]
        return red, green, blue


def screenshot(page: Path, png: Path, width: int, height: int, *options: str) -> Picture:
    """Return what *page* looks like, which is in *png* as well."""
    run(f"--screenshot={png}", f"--window-size={width},{height}", *options, page.as_uri())
    return decode(png.read_bytes())


def decode(png: bytes) -> Picture:
    """Return the pixels of a PNG of eight bits a colour, with or without transparency."""
    width, height, depth, kind = struct.unpack_from(">IIBB", png, 16)
    assert (depth, kind in (2, 6)) == (8, True)
    nr_channels = 3 if kind == 2 else 4
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    return Picture(width, height, unfilter(zlib.decompress(data), width, nr_channels))


def unfilter(data: bytes, width: int, nr_channels: int) -> bytes:
    """Undo the filters of the rows, and leave transparency out."""
    stride = width * nr_channels
    before, pixels = bytearray(stride), bytearray()
    for start in range(0, len(data), stride + 1):
        kind, row = data[start], bytearray(data[start + 1 : start + 1 + stride])
        for i in range(stride):
            left = row[i - nr_channels] if i >= nr_channels else 0
            corner = before[i - nr_channels] if i >= nr_channels else 0
            row[i] = (row[i] + predicted(kind, left, before[i], corner)) & 0xFF
        before = row
        for i in range(0, stride, nr_channels):
            pixels += row[i : i + 3]
    return bytes(pixels)


def predicted(kind: int, left: int, up: int, corner: int) -> int:
    """Return what a filter takes a byte to be, by those beside it."""
    if kind < 4:
        return (0, left, up, (left + up) // 2)[kind]
    guess = left + up - corner
    distances = (abs(guess - left), abs(guess - up), abs(guess - corner))
    return (left, up, corner)[distances.index(min(distances))]


def document(page: Path) -> str:
    """Return the page as the browser has it when it has been read."""
    return run("--dump-dom", page.as_uri()).stdout


def console(page: Path, directory: Path) -> str:
    """Return what the browser has to complain of."""
    done = run("--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri())
    lines = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return os.linesep.join(lines)
