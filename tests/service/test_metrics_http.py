"""Metrics over HTTP, as a Prometheus asks for them."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.daemon import wait_until
from tests.service.serving import Server


class UnixConnection(http.client.HTTPConnection):
    """To a socket that has a path."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(os.fspath(self._path))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where a daemon tells them."""
    path = tmp_path / "metrics.socket"
    config = tmp_path / "config"
    config.write_text(f'metrics = "unix:{path}"\n')
    server = Server(tmp_path, "--config", str(config), nr_sockets=6)
    wait_until(path.exists, lambda: "the socket")
    yield path
    server.close()


def ask(path: Path, method: str, target: str) -> tuple[int, str, str]:
    """Return the status of an answer, its content type, and its text."""
    connection = UnixConnection(path)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def test_metrics_are_answered(path: Path) -> None:
    """In the text format, and with its content type."""
    status, kind, text = ask(path, "GET", "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert "lazypagesd_restores 0.0\n" in text
    assert 'lazypagesd_worker_rounds_total{worker="0"}' in text


def test_head_has_no_body(path: Path) -> None:
    """But all the headers."""
    status, _kind, text = ask(path, "HEAD", "/metrics?x=1")
    assert (status, text) == (200, "")


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", "/", 404), ("POST", "/metrics", 405), ("GET", "/metrics/x", 404)],
)
def test_nothing_else_is_there(path: Path, method: str, target: str, status: int) -> None:
    """Nor may anything be changed."""
    assert ask(path, method, target)[0] == status


@pytest.mark.parametrize("request_", [b"x\r\n\r\n", b"x" * 100000], ids=["no HTTP", "too long"])
def test_what_is_no_request_disturbs_nobody(path: Path, request_: bytes) -> None:
    """It is told so, or hung up on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(os.fspath(path))
        try:
            sock.sendall(request_)
            assert sock.recv(100)[:12] in (b"HTTP/1.1 400", b"")
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert ask(path, "GET", "/metrics")[0] == 200
