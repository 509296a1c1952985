"""The channel for Python: processes that may have no userfaultfd hand themselves over."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lazypagesd.client import channel
from tests.client.channel_process import DEEDS, SIZE, reserve
from tests.service.stage import Stage, stage
from tests.support.victim import confine, victim_program

__all__ = ["confine", "stage", "victim_program"]

DEADLINE_S = 40.0


@pytest.mark.uffd
@pytest.mark.parametrize("deed", DEEDS)
def test_process_is_filled(stage: Stage, confine: Path, deed: str) -> None:
    """A process of a few lines that may have no userfaultfd is right in every byte."""
    server = stage.server()
    before = server.fds()
    pages = stage.directory / "pages"
    pages.write_bytes(os.urandom(SIZE))
    module = "tests.client.channel_process"
    command: list[str | Path] = [confine, sys.executable, "-m", module, server.path, pages, deed]
    done = subprocess.run(command, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0
    server.wait_for_fds(before)


def test_what_the_library_refuses_is_raised() -> None:
    """An error comes with its number, and says that it is of a channel."""
    with pytest.raises(OSError, match="channel: Invalid argument") as caught:
        channel.register(4096, 1)
    assert caught.value.errno == errno.EINVAL
    memory = reserve(4096)
    with pytest.raises(OSError, match="channel: Broken pipe"):
        channel.register(channel.address(memory), 4096)
    assert memory[0] == 0


def test_address_is_of_writable_memory() -> None:
    """Memory that cannot be written to cannot be filled, and has no address here."""
    memory = reserve(4096)
    assert channel.address(memory) % 4096 == 0
    with pytest.raises(BufferError):
        channel.address(b"constant")
