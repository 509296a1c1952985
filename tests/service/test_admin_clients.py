"""Clients of the admin socket that are not as they should be, many, or somebody else."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
import varlink  # type: ignore[import-untyped]

from tests.client.ctl.test_main import nobody
from tests.service.asking import MANAGER, Asker, Lazy, admin_path, hand_over_lazily, lazily_served
from tests.service.daemon import wait_until
from tests.service.scene import LAZY, Scene, scene
from tests.service.serving import FINISHED, Server
from tests.service.stage import Stage, stage
from tests.support.victim import victim_program

__all__ = ["scene", "stage", "victim_program"]

pytestmark = pytest.mark.uffd

MIB = 1 << 20


@pytest.fixture
def lazy(stage: Stage) -> Iterator[Lazy]:
    """A process that is filled only where it is touched; its daemon waits for nobody long."""
    lazy = lazily_served(stage, times={"lazypagesd.service.varlink.connection.PATIENCE_S": 0.5})
    yield lazy
    lazy.close()


def is_hung_up(sock: socket.socket) -> bool:
    """Wait until the daemon has hung up."""
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(1 << 16):
            pass
    return True


def test_half_a_message_is_waited_for_and_no_longer(lazy: Lazy) -> None:
    """Others are answered meanwhile, and the rest of it is not waited for for ever."""
    half = Asker(admin_path(lazy.server))
    half.socket.sendall(b'{"method": "org.lazypages.Manager.Descri')
    assert lazy.asker.call("Describe")["nr_restores"] == 1
    assert is_hung_up(half.socket)
    half.close()
    lazy.read(3)


@pytest.mark.parametrize(
    "message",
    [
        b"x" * (100 * MIB),
        b"no JSON\0",
        b"\0",
        b'{"method": "org.lazypages.Manager.Describe"' + b" " * (1 << 17) + b"}\0",
        b"[" * 60000 + b"\0",
    ],
    ids=["100 MB", "no JSON", "nothing", "too long", "nested"],
)
def test_what_is_no_call_is_hung_up_on(lazy: Lazy, message: bytes) -> None:
    """Whatever is sent, the daemon does not grow by it, and goes on with the others."""
    before = resident(lazy.server)
    other = Asker(admin_path(lazy.server))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        other.socket.sendall(message)
    assert is_hung_up(other.socket)
    other.close()
    assert lazy.asker.call("Describe")["nr_restores"] == 1
    assert resident(lazy.server) - before < 8 * MIB
    assert lazy.server.errors == []


def resident(server: Server) -> int:
    """Return how much memory the daemon has."""
    with open(f"/proc/{server.process.pid}/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "call",
    [
        b"{}",
        b"[]",
        b'{"method": 7}',
        b'{"method": "x"}',
        b'{"method": "a.b.C", "parameters": []}',
        b'{"method": "a.b.C", "more": 1}',
    ],
)
def test_call_that_is_none_is_an_error(lazy: Lazy, call: bytes) -> None:
    """What can be answered is, and the connection goes on."""
    lazy.asker.socket.sendall(call + b"\0")
    assert lazy.asker.reply()["error"] == "org.varlink.service.InvalidParameter"
    assert lazy.asker.call("Describe")["nr_restores"] == 1


def test_calls_that_follow_each_other_are_answered_in_order(lazy: Lazy) -> None:
    """Sent at once; one that wants no answer gets none."""
    for number in range(20):
        lazy.asker.send("org.lazypages.Manager.Pause", {"restore": 100 + number})
        lazy.asker.send("org.lazypages.Manager.Describe", {}, oneway=True)
    answers = [lazy.asker.reply()["parameters"]["restore"] for _ in range(20)]
    assert answers == list(range(100, 120))


def test_client_that_does_not_read_is_hung_up_on(lazy: Lazy) -> None:
    """It asks for more than fits, and never reads; faults are answered all the time."""
    lazy.asker.call("Describe")
    before = lazy.server.nr_sockets()
    with contextlib.closing(Asker(admin_path(lazy.server))) as deaf:
        deaf.call("Describe")  # so that it has been accepted
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
            deaf.socket.setblocking(False)
            for _ in range(2000):
                deaf.send("org.varlink.service.GetInterfaceDescription", {"interface": MANAGER})
        lazy.read(3)
        wait_until(lambda: lazy.server.nr_sockets() == before, lambda: "it to be hung up on")
    assert lazy.asker.call("Describe")["nr_restores"] == 1


def test_client_that_calls_no_more_is_answered(lazy: Lazy) -> None:
    """To the last of its calls, though it has closed its direction before it reads."""
    name = "org.varlink.service.GetInterfaceDescription"
    for _ in range(40):
        lazy.asker.send(name, {"interface": MANAGER})
    lazy.asker.socket.shutdown(socket.SHUT_WR)
    answers = [lazy.asker.reply()["parameters"]["description"] for _ in range(40)]
    assert set(map(len, answers)) == {len(answers[0])}
    assert lazy.asker.socket.recv(1) == b""


def test_watcher_that_leaves_is_not_kept(lazy: Lazy) -> None:
    """Though nothing happens that it could be told of."""
    lazy.asker.call("Describe")  # so that it has been accepted
    fds = lazy.server.fds()
    for _ in range(20):
        watcher = Asker(admin_path(lazy.server))
        next(watcher.stream("Watch", interval_ms=100))
        watcher.close()
    lazy.server.wait_for_fds(fds)


def test_500_connections_disturb_nobody(lazy: Lazy) -> None:
    """A user has 128 of them, further ones are closed; a page is filled as ever."""
    lazy.asker.call("Describe")
    before = lazy.server.nr_sockets()
    with contextlib.ExitStack() as stack:
        crowd = []
        for _ in range(500):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.connect(os.fspath(admin_path(lazy.server)))
            sock.settimeout(20)
            crowd.append(sock)
        lazy.read(3)
        assert sum(map(is_closed, crowd)) == 500 - 127
        assert lazy.asker.call("Describe")["nr_restores"] == 1
    wait_until(lambda: lazy.server.nr_sockets() == before, lambda: "them to be gone")


def is_closed(sock: socket.socket) -> bool:
    """Whether the daemon has closed it: who is answered is not."""
    try:
        sock.sendall(b'{"method": "org.varlink.service.GetInfo"}\0')
        return not sock.recv(1)
    except (BrokenPipeError, ConnectionResetError):
        return True


@pytest.mark.root
def test_others_see_and_touch_only_what_is_theirs(stage: Stage) -> None:
    """A user who may connect is told of his own restores; another's does not exist for him."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    server, restored = stage.server(), stage.restored()
    with hand_over_lazily(server, restored) as restore:
        for directory in (server.directory, *server.directory.parents[:3]):
            directory.chmod(0o755)
        admin_path(server).chmod(0o666)
        with nobody():
            other = Asker(admin_path(server))
        assert other.call("Describe")["nr_restores"] == 0
        assert other.call("ListRestores", ended=True)["restores"] == []
        assert other.call("GetFaults")["faults"] == []
        for method in ("Pause", "Drain"):
            assert other.fails(method, restore=1) == ("NoSuchRestore", {"restore": 1})
        assert other.fails("Detach", session="1/0", lose_pages=True)[0] == "NoSuchSession"
        assert other.fails("Explain", pid=restored.victim.pid)[0] == "NoSuchProcess"
        assert 'restore="1"' not in other.call("GetMetrics")["text"]
        assert other.call("Retry") == {"nr_sessions": 0}
        other.close()
        assert not restore.progress().ended


def test_client_of_another_make_understands_us(lazy: Lazy) -> None:
    """The varlink package, which reads the interface from the daemon."""
    client = varlink.Client(f"unix:{admin_path(lazy.server)}")
    with client.open("org.lazypages.Manager", namespaced=True) as manager:
        assert manager.Describe().nr_restores == 1
        [restore] = manager.ListRestores().restores
        assert restore.pace.kind == "lazy"
        with pytest.raises(varlink.VarlinkError, match="NoSuchRestore"):
            manager.Pause(7)
        moments = manager.Watch(restore=1, _more=True)
        assert next(moments).restores[0].id == 1
    client.cleanup()


def test_next_daemon_answers_and_remembers_faults(scene: Scene) -> None:
    """After the death of a daemon whose client was connected, the next one is asked, and shows
    what the last one did."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    asker = Asker(manager.admin_path)
    restored.check(3, 1)
    wait_until(
        lambda: len(asker.call("GetFaults", restore=1)["faults"]) == 1, lambda: "a fault on record"
    )
    [before] = asker.call("GetFaults", restore=1)["faults"]
    asker.call("Pause", restore=1)
    manager.kill()
    manager.restart()
    # Until then its keeper, and the manager, had it open still.
    assert is_hung_up(asker.socket)
    asker.close()
    asker = Asker(manager.admin_path)
    daemon = asker.call("Describe")
    assert (daemon["nr_takeovers"], daemon["nr_restores"]) == (1, 1)
    [found] = asker.call("ListRestores")["restores"]
    assert found["state"] == "paused"
    [after] = asker.call("GetFaults", restore=1)["faults"]
    assert after == before | {"time_usec": after["time_usec"]}
    restored.check(4, 1)
    asker.close()
