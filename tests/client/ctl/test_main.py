"""What goes wrong is one line on stderr, and an exit code."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazypagesd.client.ctl.main import main
from lazypagesd.client.ctl.trouble import NO_DAEMON, NO_PERMISSION
from tests.service.restorer import write_checkpoint
from tests.service.serving import Server

NOBODY = 65534


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A daemon that serves."""
    server = Server(tmp_path)
    yield server
    server.close()


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be a user who may do nothing."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        os.setgroups(groups)


@pytest.fixture
def closed_socket() -> Iterator[Path]:
    """A socket that only its owner may connect to, in a directory that is open to all."""
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        Path(directory).chmod(0o755)
        path = Path(directory, "handoff.socket")
        listener.bind(os.fspath(path))
        path.chmod(0o660)
        listener.listen()
        yield path


def complaint(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 1) -> str:
    """Run the command, which fails; return its one line."""
    assert main([*map(str, words)]) == code
    done = capsys.readouterr()
    assert done.out == ""
    assert done.err.startswith("lazypagesctl: ")
    assert done.err.count("\n") == 1
    return done.err.removeprefix("lazypagesctl: ").rstrip()


def test_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing listens one is told to start the daemon."""
    path = tmp_path / "handoff.socket"
    expected = f"no daemon listens at {path}: start `lazypagesd serve`"
    words: list[str | Path] = ["serve", "criu", "-D", tmp_path, "--socket", path]
    assert complaint(capsys, *words, code=NO_DAEMON) == expected
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_behind:
        left_behind.bind(os.fspath(path))
    assert complaint(capsys, *words, code=NO_DAEMON) == expected


@pytest.mark.root
def test_no_permission(closed_socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who may not connect is told who may."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    with nobody():
        words = ["serve", "criu", "-D", "/", "--socket", str(closed_socket)]
        text = complaint(capsys, *words, code=NO_PERMISSION)
    assert text == f"{closed_socket}: permission denied: it is for user root and group root"


@pytest.mark.root
def test_no_permission_to_look(closed_socket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is it a traceback where not even the socket's owner can be seen."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    closed_socket.parent.chmod(0o700)
    with nobody():
        words = ["serve", "criu", "-D", "/", "--socket", str(closed_socket)]
        text = complaint(capsys, *words, code=NO_PERMISSION)
    assert text == f"{closed_socket}: permission denied: it is for another user"


def test_images_are_not_there(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path that is missing, or no directory, or no directory of images, is named."""
    images = tmp_path / "images"
    words: list[str | Path] = ["serve", "criu", "-D", images, "--socket", server.path]
    assert complaint(capsys, *words) == f"{images}: No such file or directory"
    images.touch()
    assert complaint(capsys, *words) == f"{images}: Not a directory"
    images.unlink()
    images.mkdir()
    assert complaint(capsys, *words) == (
        "images: inventory.img: missing: is this all of a checkpoint?"
    )


def test_work_directory_takes_no_socket(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no socket can be made, the error says which."""
    images = tmp_path / "images"
    write_checkpoint(images, {7: 1}, set())
    text = complaint(capsys, "serve", "criu", "-D", images, "-W", "/proc", "--socket", server.path)
    assert text == "/proc/lazy-pages.socket: No such file or directory"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["serve"], "the following arguments are required: TOOL"),
        (["serve", "criu", "--bogus"], "unrecognized arguments: --bogus"),
        (
            ["serve", "criu", "--pace", "0"],
            "argument --pace: neither eager, nor lazy, nor bytes a second such as 64M ('0')",
        ),
        (
            ["wait", "one"],
            "argument RESTORE: no restore is called so: say its number ('one')",
        ),
        (["serve", "criu", "--", "-d"], "-- and options of CRIU's are for `restore criu`"),
        (
            ["restore", "criu", "--", "-d", "-D", "x"],
            "-D is given to criu already: say -D and -W before --",
        ),
    ],
)
def test_usage_error(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that is wrong is exit code 2, and said why."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {text}")
