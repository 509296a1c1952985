"""The examples of docs/, against a daemon that runs, and against one that misbehaves."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from lazypagesd.proto import handoff_pb2 as pb
from tests.service.daemon import DEADLINE_S
from tests.service.serving import PAGE_SIZE, Server

pytestmark = pytest.mark.uffd

KINDS = ("open", "add_session", "finished", "release")
ACCEPTED = pb.Answer(accepted=True, restore="restore 1 (restore_tool)")


@pytest.fixture(scope="module")
def c_program(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """restore_tool.c, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for restore_tool.c")
    program = tmp_path_factory.mktemp("example") / "restore_tool"
    source = repository / "docs/examples/restore_tool.c"
    options = ["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Werror"]
    subprocess.run([compiler, *options, "-o", program, source], check=True, timeout=60)
    return program


@pytest.fixture(params=["c", "python"])
def tool(request: pytest.FixtureRequest, repository: Path) -> Sequence[str | Path]:
    """The command of one of the examples."""
    if request.param == "c":
        return [request.getfixturevalue("c_program")]
    return [sys.executable, repository / "docs/examples/restore_tool.py"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A daemon that serves."""
    server = Server(tmp_path)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is to be undone after the test."""
    with ExitStack() as stack:
        yield stack


class Run:
    """One run of a tool, which leaves no process behind."""

    def __init__(self, tool: Sequence[str | Path], path: Path, snapshot: Path) -> None:
        # No pipe, which would fill up while the test does something else.
        self._stdout = snapshot.with_name("stdout")
        with self._stdout.open("wb") as stdout:
            self.process = subprocess.Popen(
                [*tool, path, snapshot],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )

    def end(self) -> tuple[int, bytes, list[str]]:
        """Return its exit code, what its child has printed, and its lines on stderr."""
        ended = self.output()
        # The child was in its process group; not even a zombie is left.
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        return ended

    def output(self) -> tuple[int, bytes, list[str]]:
        """Return the same, when both have closed their stderr: the child has ended as well."""
        _, stderr = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, self._stdout.read_bytes(), stderr.decode().splitlines()

    def close(self) -> None:
        """Kill whoever is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with self.process:  # which closes its pipe, and waits
            pass


Start = Callable[[Path, Path], Run]


@pytest.fixture
def start(tool: Sequence[str | Path], stack: ExitStack) -> Start:
    """What starts one of the examples, with a socket and a snapshot."""

    def start(path: Path, snapshot: Path) -> Run:
        run = Run(tool, path, snapshot)
        stack.callback(run.close)
        return run

    return start


class MadeUpDaemon:
    """What a tool connects to, and the test answers for."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        self._listener = self._own(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self._listener.bind(os.fspath(self.path))
        self._listener.listen(1)
        self.fds: list[int] = []

    def accept(self) -> None:
        """Let the tool connect."""
        connection, _ = self._listener.accept()
        self.connection = self._own(connection)

    def request(self) -> pb.Request:
        """Return the next request; *fds* are what came beside it, until the test has ended."""
        data, self.fds, _, _ = socket.recv_fds(self.connection, 1 << 16, 16)
        for fd in self.fds:
            self._stack.callback(os.close, fd)
        return pb.Request.FromString(data)

    def answer_until(self, kind: str) -> None:
        """Accept all requests before that of *kind*, which is read and not answered."""
        while (request := self.request()).WhichOneof("kind") != kind:
            self.answer(ACCEPTED.SerializeToString())
            assert request.WhichOneof("kind") in KINDS

    def answer(self, data: bytes) -> None:
        """Answer."""
        self.connection.send(data)

    def _own(self, sock: socket.socket) -> socket.socket:
        sock.settimeout(DEADLINE_S)
        return self._stack.enter_context(sock)


@pytest.fixture
def made_up(tmp_path: Path, stack: ExitStack) -> MadeUpDaemon:
    """A daemon that the test answers for."""
    return MadeUpDaemon(tmp_path / "made-up.socket", stack)


def write_snapshot(directory: Path, size: int = 700 * PAGE_SIZE) -> Path:
    """Write a snapshot, no page of which is like another one."""
    path = directory / "snapshot"
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def test_every_byte_is_right(server: Server, start: Start, tmp_path: Path) -> None:
    """The child finds in its memory what the snapshot has, and the daemon keeps nothing."""
    before = server.fds()
    snapshot = write_snapshot(tmp_path)
    assert start(server.path, snapshot).end() == (0, snapshot.read_bytes(), [])
    server.wait_for_fds(before)
    # The child may end before it is told as drained, but not before all is filled.
    server.wait_for_log(" MiB filled, 0 pages missing")


def test_every_page_is_touched(
    server: Server, made_up: MadeUpDaemon, start: Start, tmp_path: Path
) -> None:
    """Where nothing is filled unasked, the child gets its pages by touching them."""
    snapshot = write_snapshot(tmp_path)
    run = start(made_up.path, snapshot)
    made_up.accept()
    client = server.client()
    for kind in KINDS:
        request = made_up.request()
        assert request.WhichOneof("kind") == kind
        if kind == "open":
            request.open.pace.kind = pb.Pace.LAZY
        made_up.answer(client.do(request, *made_up.fds).SerializeToString())
    assert run.end() == (0, snapshot.read_bytes(), [])
    client.close()
    server.wait_for_log(" faults served")
    assert " 0 faults served" not in server.log


def test_short_snapshot_is_refused(server: Server, start: Start, tmp_path: Path) -> None:
    """A snapshot that ends in mid-page restores nothing, and the tool says why."""
    code, stdout, [line] = start(server.path, write_snapshot(tmp_path, 10_000)).end()
    assert (code, stdout) == (1, b"")
    assert line.startswith("restore_tool: refused: region 0x")
    assert line.endswith("needs 12288 bytes of file 0, which has 10000")


def test_nobody_listens(start: Start, tmp_path: Path) -> None:
    """Without a daemon the socket is named."""
    path = tmp_path / "handoff.socket"
    code, stdout, [line] = start(path, write_snapshot(tmp_path)).end()
    assert (code, stdout) == (1, b"")
    assert "No such file or directory" in line
    assert os.fspath(path) in line


def test_requests_are_as_described(made_up: MadeUpDaemon, start: Start, tmp_path: Path) -> None:
    """A tool sends what proto/handoff/handoff.proto describes, and nothing else."""
    run = start(made_up.path, write_snapshot(tmp_path))
    made_up.accept()
    request = made_up.request()
    request.open.ClearField("pace")  # eager in one, and nothing in the other, is the same
    assert request == pb.Request(number=1, open=pb.Open(version=1, name="restore_tool"))
    made_up.answer(ACCEPTED.SerializeToString())
    request = made_up.request()
    [region] = request.add_session.regions
    assert request == pb.Request(
        number=2,
        add_session=pb.AddSession(
            regions=[pb.Region(start=region.start, nr_pages=700)], pidfd=True
        ),
    )
    assert len(made_up.fds) == 3
    # A daemon that has taken over repeats the last answer, for want of knowing better.
    made_up.answer(pb.Answer(accepted=True, number=1).SerializeToString())
    made_up.answer(pb.Answer(refused=["one", "another"]).SerializeToString())
    lines = ["restore_tool: refused: one", "restore_tool: refused: another"]
    assert run.end() == (1, b"", lines)


@pytest.mark.parametrize("kind", KINDS)
def test_child_is_killed_when_the_daemon_hangs_up(
    made_up: MadeUpDaemon, start: Start, tmp_path: Path, kind: str
) -> None:
    """Whenever the daemon leaves, the child ends before it has seen a page that is not filled."""
    run = start(made_up.path, write_snapshot(tmp_path))
    made_up.accept()
    made_up.answer_until(kind)
    made_up.connection.close()
    code, stdout, [line] = run.end()
    assert (code, stdout) == (1, b"")
    assert "hung up" in line


@pytest.mark.parametrize("kind", KINDS[:3])
def test_child_ends_with_the_tool(
    made_up: MadeUpDaemon, start: Start, tmp_path: Path, kind: str
) -> None:
    """Where the tool is killed before it has let the child run, the child ends without running."""
    run = start(made_up.path, write_snapshot(tmp_path))
    made_up.accept()
    made_up.answer_until(kind)
    run.process.kill()
    # That its parent has gone may be an error to the child.
    code, stdout, _ = run.output()
    assert (code, stdout) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 9])
def test_answer_is_cut_off(made_up: MadeUpDaemon, start: Start, tmp_path: Path, kept: int) -> None:
    """An answer that ends within a field is none; where one ends, it says less."""
    run = start(made_up.path, write_snapshot(tmp_path))
    made_up.accept()
    made_up.answer_until("open")
    made_up.answer(ACCEPTED.SerializeToString()[:kept])
    if kept == 2:  # all of `accepted`, and nothing of `restore`
        made_up.answer_until("add_session")
    made_up.connection.close()
    code, stdout, [_] = run.end()
    assert (code, stdout) == (1, b"")
