"""What the daemon answers at its admin socket, about a real process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.service.asking import Asker, Lazy, admin_path, hand_over_lazily, lazily_served
from tests.service.daemon import OFTEN, wait_until
from tests.service.serving import PAGE_SIZE
from tests.service.stage import BASE, NR_PAGES, Stage, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd

IMAGE_PAGES = 141


@pytest.fixture
def lazy(stage: Stage) -> Iterator[Lazy]:
    """A process that is filled only where it is touched."""
    lazy = lazily_served(stage)
    yield lazy
    lazy.close()


def session_of(lazy: Lazy) -> dict[str, object]:
    """Return the session, as it is told of."""
    found = lazy.asker.call("GetSession", session="1/0")["session"]
    assert isinstance(found, dict)
    return found


def test_service_says_what_it_is(lazy: Lazy) -> None:
    """Name, version and interfaces, each of which can be had as it is written."""
    info = lazy.asker.call("org.varlink.service.GetInfo")
    assert info["product"] == "lazypagesd"
    assert info["interfaces"] == [
        "io.systemd.Metrics",
        "org.lazypages.Manager",
        "org.varlink.service",
    ]
    for name in info["interfaces"]:
        text = lazy.asker.call("org.varlink.service.GetInterfaceDescription", interface=name)
        assert f"interface {name}\n" in text["description"]


def test_daemon_restores_and_sessions_are_told_of(lazy: Lazy) -> None:
    """What there is, how far it is, and whose."""
    lazy.read(3)
    daemon = lazy.asker.call("Describe")
    assert (daemon["nr_restores"], daemon["nr_sessions"]) == (1, 1)
    assert daemon["pid"] == lazy.server.process.pid
    assert len(daemon["workers"]) == len(os.sched_getaffinity(0))
    [restore] = lazy.asker.call("ListRestores")["restores"]
    assert (restore["id"], restore["name"], restore["owner"]) == (1, "restore 1 (web)", 0)
    assert (restore["state"], restore["pace"]) == ("filling", {"kind": "lazy"})
    assert restore["progress"]["nr_pages"] == IMAGE_PAGES
    wait_until(lambda: fault_count(lazy) == 1, lambda: "the fault to be counted")
    assert lazy.asker.call("ListRestores")["restores"][0]["statistics"]["pages_fault"] == 1
    [session] = lazy.asker.call("ListSessions", restore=1)["sessions"]
    assert (session["id"], session["pid"], session["state"]) == ("1/0", lazy.pid, "serving")
    assert lazy.asker.call("ListSessions")["sessions"][0]["id"] == "1/0"


def fault_count(lazy: Lazy) -> int:
    """Return how many faults have been filled, as it is told."""
    [restore] = lazy.asker.call("ListRestores")["restores"]
    return sum(kind["count"] for kind in restore["statistics"]["latencies"])


def test_session_is_found_by_its_process(lazy: Lazy) -> None:
    """By id or by pid, and not by both."""
    by_pid = lazy.asker.call("GetSession", pid=lazy.pid)
    assert by_pid["session"]["id"] == "1/0"
    assert by_pid["sources"][0]["size"] == IMAGE_PAGES * PAGE_SIZE
    asker = lazy.asker
    assert asker.fails("GetSession", pid=1) == ("NoSuchProcess", {"pid": 1})
    assert asker.fails("GetSession", session="1/9") == ("NoSuchSession", {"session": "1/9"})
    assert asker.fails("GetSession") == ("InvalidParameter", {"parameter": "session"})


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("ListSessions", {"restore": 7}, ("NoSuchRestore", {"restore": 7})),
        ("Pause", {"restore": 7}, ("NoSuchRestore", {"restore": 7})),
        ("Pause", {}, ("InvalidParameter", {"parameter": "restore"})),
        ("Pause", {"restore": "1"}, ("InvalidParameter", {"parameter": "restore"})),
        ("Pause", {"restore": 1, "x": 1}, ("InvalidParameter", {"parameter": "x"})),
        (
            "SetPolicy",
            {"restore": 1, "pace": {"kind": "fast"}},
            ("InvalidParameter", {"parameter": "pace.kind"}),
        ),
        (
            "SetPolicy",
            {"restore": 1, "pace": {"kind": "paced", "rate": 0}},
            ("InvalidParameter", {"parameter": "pace.rate"}),
        ),
        ("Watch", {}, ("ExpectedMore", {})),
        ("GetFaults", {"limit": 0}, ("InvalidParameter", {"parameter": "limit"})),
        ("Nothing", {}, ("MethodNotFound", {"method": "org.lazypages.Manager.Nothing"})),
        ("a.b.C", {}, ("InterfaceNotFound", {"interface": "a.b"})),
    ],
)
def test_what_cannot_be_is_a_typed_error(
    lazy: Lazy, method: str, parameters: dict[str, object], error: tuple[str, dict[str, object]]
) -> None:
    """And the connection is of use afterwards."""
    assert lazy.asker.fails(method, **parameters) == error
    assert lazy.asker.call("Describe")["nr_restores"] == 1


def test_faults_and_steps_are_on_record(lazy: Lazy) -> None:
    """Each fault with its page, its kind and its source; what was filled unasked beside it."""
    lazy.read(3, 2)
    lazy.read(45)
    lazy.on_record("faults", 3)
    faults = lazy.asker.call("GetFaults", restore=1)["faults"]
    assert [fault["addr"] for fault in faults] == [BASE + page * PAGE_SIZE for page in (3, 4, 45)]
    assert [fault["kind"] for fault in faults] == ["image", "image", "zero"]
    assert {fault["outcome"] for fault in faults} == {"filled"}
    [last] = lazy.asker.call("GetFaults", session="1/0", limit=1)["faults"]
    assert last == faults[-1] | {"time_usec": last["time_usec"]}
    streamed = [f for reply in lazy.asker.stream("GetFaults") for f in reply["faults"]]
    assert [fault["addr"] for fault in streamed] == [fault["addr"] for fault in faults]
    asyncio.run(lazy.restored.victim.discard(BASE + 10 * PAGE_SIZE, 5))
    lazy.on_record("steps", 1)
    steps = lazy.asker.call("GetSteps", restore=1)["steps"]
    assert [(step["kind"], step["addr"], step["len"]) for step in steps] == [
        ("remove", BASE + 10 * PAGE_SIZE, 5 * PAGE_SIZE)
    ]


def test_fork_is_on_record_with_its_child(lazy: Lazy) -> None:
    """The child's session is listed, without a pid, and named by the step that made it."""
    asyncio.run(lazy.restored.victim.fork())
    [step] = lazy.on_record("steps", 1)
    # It was listed before that.
    sessions = lazy.asker.call("ListSessions", restore=1)["sessions"]
    assert [session["id"] for session in sessions] == ["1/0", "1/0.1"]
    assert "pid" not in sessions[1]
    assert (step["kind"], step["child"]) == ("fork", "1/0.1")


def test_pause_holds_what_the_pace_would_fill(lazy: Lazy) -> None:
    """Paused, an eager restore is filled only where it is touched; resumed, to its end."""
    asker = lazy.asker
    asker.call("Pause", restore=1)
    asker.call("SetPolicy", restore=1, pace={"kind": "eager"})
    lazy.read(3)
    [restore] = asker.call("ListRestores")["restores"]
    assert (restore["state"], restore["pace"]) == ("paused", {"kind": "eager"})
    assert restore["progress"]["nr_missing"] == IMAGE_PAGES - 1
    asker.call("Resume", restore=1)
    assert lazy.restore.release().ended
    lazy.restored.check()
    for line in ("paused, for user 0", "its pace is eager, for user 0", "resumed, for user 0"):
        assert f"restore 1 (web): {line}" in lazy.server.log


def test_drain_says_how_far_it_is(lazy: Lazy) -> None:
    """As a stream that ends when all is in."""
    replies = list(lazy.asker.stream("Drain", restore=1))
    assert replies[-1]["progress"]["nr_missing"] == 0
    lazy.restored.check()


def test_drain_waits_for_the_restore_tool(stage: Stage) -> None:
    """Before that has finished nothing may be filled unasked."""
    server, restored = stage.server(), stage.restored()
    with hand_over_lazily(server, restored, finish=False) as restore:
        asker = Asker(admin_path(server))
        assert asker.fails("Drain", restore=1) == ("NotReleased", {"restore": 1})
        [found] = asker.call("ListRestores")["restores"]
        assert found["state"] == "handing_over"
        asker.close()
        restore.finished()
        asker = Asker(admin_path(server))
        assert asker.call("Drain", restore=1)["progress"]["nr_pages"] == IMAGE_PAGES
        assert restore.release().ended
        asker.close()


def test_detach_loses_no_page_unasked(lazy: Lazy) -> None:
    """Where pages are missing it is refused, unless that is wanted, and then it is logged."""
    error = ("PagesMissing", {"session": "1/0", "nr_missing": IMAGE_PAGES})
    assert lazy.asker.fails("Detach", session="1/0") == error
    lazy.read(3)
    lazy.asker.call("Detach", session="1/0", lose_pages=True)
    lazy.server.wait_for_log(f"{IMAGE_PAGES - 1} pages are lost")


def test_watch_tells_of_a_restore_to_its_end(lazy: Lazy) -> None:
    """At once, when something has changed, and how it ended."""
    replies = lazy.asker.stream("Watch", restore=1, interval_ms=100)
    [first] = next(replies)["restores"]
    assert first["progress"]["nr_missing"] == IMAGE_PAGES
    lazy.read(3)
    [second] = next(replies)["restores"]
    assert second["progress"]["nr_missing"] < IMAGE_PAGES
    with contextlib.closing(Asker(admin_path(lazy.server))) as other:
        other.call("Drain", restore=1)
    assert lazy.restore.release().ended
    lazy.restore.close()
    [last] = list(replies)[-1]["restores"]
    assert (last["state"], last["progress"]["nr_missing"]) == ("ended", 0)


def test_ended_restores_are_remembered(lazy: Lazy) -> None:
    """With their sessions, and their faults by name."""
    lazy.read(3)
    lazy.asker.call("SetPolicy", restore=1, pace={"kind": "eager"})
    assert lazy.restore.release().ended
    lazy.restore.close()
    lazy.server.wait_for_log("restore 1 (web): ended")
    asker = lazy.asker
    wait_until(
        lambda: not asker.call("ListRestores")["restores"], lambda: "the restore to be gone"
    )
    [past] = asker.call("ListRestores", ended=True)["restores"]
    assert (past["state"], past["progress"]["nr_missing"]) == ("ended", 0)
    assert past["ended_usec"] >= past["began_usec"]
    [session] = asker.call("ListSessions", restore=1)["sessions"]
    assert session["state"] == "drained"
    assert asker.call("GetFaults", restore=1)["faults"][0]["session"] == "1/0"


def test_page_that_cannot_be_filled_is_explained_and_retried(stage: Stage) -> None:
    """Which page, of which file, since when; and once that is mended, one word is enough."""
    server, restored = (
        stage.server(times={"lazypagesd.engine.engine.RETRY_INTERVAL_S": 600}),
        (stage.restored()),
    )
    restore = hand_over_lazily(server, restored)
    lazy = Lazy(server, restored, restore, Asker(admin_path(server)))
    path = restored.image.path
    whole = path.read_bytes()
    os.truncate(path, 0)

    async def read() -> bytes:
        reading = asyncio.ensure_future(restored.victim.read(BASE, 1))
        await asyncio.to_thread(server.wait_for_log, "cannot be filled")
        explained = lazy.asker.call("Explain", pid=lazy.pid)
        [explanation] = explained["explanations"]
        assert explanation["state"] == "waiting"
        assert f"page {BASE:#x} cannot be filled" in explanation["because"]
        assert "the file ends before it" in explanation["because"]
        assert "retry" in explanation["advice"]
        [waiting] = explanation["waiting"]
        assert (waiting["addr"], waiting["reason"]) == (BASE, "held")
        oldest = lazy.asker.call("Describe")["oldest"]
        assert (oldest["session"], oldest["reason"]) == ("1/0", "held")
        assert lazy.asker.call("ListRestores")["restores"][0]["state"] == "waiting"
        path.write_bytes(whole)
        assert lazy.asker.call("Retry", restore=1)["nr_sessions"] == 1
        return await reading

    assert asyncio.run(read()) == restored.image.bytes(BASE, 1)

    def last() -> tuple[int, str]:
        [fault] = lazy.asker.call("GetFaults", session="1/0", limit=1)["faults"]
        return fault["addr"], fault["outcome"]

    wait_until(lambda: last() == (BASE, "filled"), lambda: str(last()))
    lazy.close()


def test_process_that_waits_for_nothing_is_told_so(lazy: Lazy) -> None:
    """It waits for something else, and what is missing is named."""
    lazy.read(0)
    lazy.on_record("faults", 1)
    [explanation] = lazy.asker.call("Explain", session="1/0")["explanations"]
    assert "waits for nothing of ours: 140 of 141 pages are missing" in explanation["because"]
    assert explanation["last"][-1]["addr"] == BASE


def test_metrics_are_told_in_both_ways(lazy: Lazy) -> None:
    """As text for Prometheus, and one by one as systemd's services do, with the same values."""
    lazy.read(3)
    wait_until(lambda: fault_count(lazy) == 1, lambda: "the fault to be counted")
    text = lazy.asker.call("GetMetrics")["text"]
    assert 'lazypagesd_faults_total{restore="1"} 1.0\n' in text
    assert 'lazypagesd_fault_latency_seconds_count{kind="image",restore="1"} 1.0\n' in text
    families = lazy.asker.stream("io.systemd.Metrics.Describe")
    described = {each["name"]: each["type"] for each in families}
    assert described["org.lazypages.faults_total"] == "counter"
    values = list(lazy.asker.stream("io.systemd.Metrics.List"))
    assert {each["name"] for each in values} <= described.keys()
    [faults] = [each for each in values if each["name"] == "org.lazypages.faults_total"]
    assert (faults["value"], faults["object"]) == (1, "1")


def test_retry_often_is_no_trouble(stage: Stage) -> None:
    """A daemon that retries by itself all the time answers meanwhile."""
    lazy = lazily_served(stage, times=OFTEN)
    for _ in range(50):
        lazy.asker.call("Retry")
    lazy.read(0, NR_PAGES)
    lazy.close()
