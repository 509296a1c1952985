"""The channel in a C program that knows nothing but channel.h."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from lazypagesd.client import Region, Restore
from tests.service.daemon import DEADLINE_S
from tests.service.stage import BASE, Stage, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

PAGE_SIZE = 4096
BYTE = 0x5A


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """previous_handler.c, compiled with the library as anybody's program is."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for previous_handler.c")
    program = tmp_path_factory.mktemp("channel") / "previous_handler"
    client = repository / "lazypagesd/client"
    sources = [repository / "tests/client/previous_handler.c", client / "channel_all.c"]
    options = ["-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command: list[str | Path] = [compiler, *options, "-I", client, "-o", program, *sources]
    subprocess.run(command, check=True, timeout=60)
    return program


@pytest.mark.uffd
@pytest.mark.parametrize("handler", ["siginfo", "plain"])
def test_previous_handler_gets_what_is_not_ours(stage: Stage, program: Path, handler: str) -> None:
    """A handler of SIGSEGV that was there before is called for other memory, and for no page
    that is on its way."""
    server = stage.server()
    pages = stage.directory / "pages"
    pages.write_bytes(bytes([BYTE]) * PAGE_SIZE)
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        command: list[str | Path] = [program, str(ours.fileno()), hex(BASE), str(BYTE), handler]
        process = subprocess.Popen(command, pass_fds=[ours.fileno()])
    with theirs, Restore.open("c", server.path) as restore, pages.open("rb") as file:
        regions, files = [Region(BASE, 1, offset=0)], [file.fileno()]
        restore.add_session(theirs.fileno(), regions=regions, files=files, channel=True)
        theirs.close()
        assert process.wait(DEADLINE_S) == 0
