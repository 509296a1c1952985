"""Restores that break the protocol: each ends alone, and the daemon with 1."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.service.conftest import NR_PAGES, Stage
from tests.service.daemon import NO_GRACE, OFTEN, Daemon, wait_until

pytestmark = pytest.mark.uffd

NR_STANDARD_FDS = 3

# What a restore of process 7 and zombie 5 does wrong, and what the daemon says of it.
MISBEHAVIOURS = {
    "no byte": (["close"], "closed the connection while 2 of the processes are yet to come"),
    "half a pid": (["number 7 2", "close"], "short read of a pid (0700), 2 of the processes"),
    "pid of nobody": (
        ["pid 9"],
        "pid 9 is not in the checkpoint, or came before: restore from the same images directory",
    ),
    "pid 0": (["pid 0"], "pid 0 is not in the checkpoint"),
    "pid twice": (["pid -5", "pid -5"], "pid -5 is not in the checkpoint, or came before"),
    "live zombie": (["pid 5"], "pid 5: it is a zombie in the checkpoint"),
    "dead process": (["pid -7"], "pid -7: it is no zombie in the checkpoint"),
    "early end": (["pid 7", "close"], "closed the connection before the descriptor of 7"),
    "no descriptor": (["pid 7", "descriptor 7 none"], "0 descriptors came for pid 7, not 1"),
    "two descriptors": (["pid 7", "descriptor 7 two"], "2 descriptors came for pid 7, not 1"),
    "other file": (
        ["pid 7", "descriptor 7 file"],
        "the descriptor of pid 7 is no userfaultfd (/dev/null)",
    ),
    "blocking": (
        ["pid 7", "descriptor 7 blocking"],
        "the userfaultfd of pid 7 cannot be served: it is blocking: open it with O_NONBLOCK",
    ),
    "sigbus": (
        ["pid 7", "descriptor 7 sigbus"],
        "of pid 7 cannot be served: it has UFFD_FEATURE_SIGBUS, and so sends no messages: do",
    ),
    "raw": (["pid 7", "descriptor 7 raw"], "its API is not negotiated: do UFFDIO_API first"),
    "lacking": (
        ["pid 7", "descriptor 7 lacking"],
        "it lacks EVENT_REMAP: ask for all four events in UFFDIO_API",
    ),
    "word too early": (["word"], "pid 1381192774 is not in the checkpoint"),
    "no word": (
        ["pid 7", "descriptor 7", "pid -5", "close"],
        "the restore closed the connection before it had finished",
    ),
    "wrong word": (
        ["pid 7", "descriptor 7", "pid -5", "number 7 4"],
        "the final word is 07000000, not 0x52535446",
    ),
    "half a word": (
        ["pid 7", "descriptor 7", "pid -5", "number 21574 2", "close"],
        "the final word is 4654, not 0x52535446",
    ),
}


@pytest.mark.parametrize("what", MISBEHAVIOURS)
def test_others_are_served_when_one_misbehaves(stage: Stage, what: str) -> None:
    """The one is told off and let go of; every byte of another is right, and the code is 1."""
    commands, message = MISBEHAVIOURS[what]
    stage.checkpoint({7: NR_PAGES}, zombies={5})
    daemon = stage.daemon()
    good = stage.half_done()
    assert good.read(7, 0) == "right"
    bad = stage.restorer("connect", *commands)
    if commands[-1] != "close":
        bad.do("end")
    daemon.wait_for_log(message)
    bad.kill()
    good.do("pid -5", "word", "close")
    good.check(7, NR_PAGES)
    assert daemon.wait() == 1
    [error] = daemon.errors
    assert error.startswith("restore 2: hand-off: ")
    assert message in error


def test_restore_that_is_killed_before_the_final_word_has_failed(stage: Stage) -> None:
    """A restore that dies while it hands over ends the daemon with 1, which says so."""
    daemon = stage.daemon("-v")
    stage.half_done().kill()
    assert daemon.wait() == 1
    assert daemon.errors == [
        "restore 1: hand-off: the restore closed the connection before it had finished"
    ]
    assert "process restore 1/7: gone" in daemon.log


def test_processes_that_outlive_their_failed_restore_are_served_for_a_while(stage: Stage) -> None:
    """A process whose restore has failed reads right bytes until it is given up, with a word."""
    daemon = stage.daemon(times={"lazypagesd.service.restores.FAILED_GRACE_S": 1.0})
    restorer = stage.half_done()
    restorer.do("close")
    assert restorer.read(7, 1) == "right"
    assert daemon.wait() == 1
    _, given_up, lost = daemon.errors
    assert given_up == "restore 1: its processes live on without a restore, giving them up"
    assert (
        lost
        == f"process restore 1/7: {NR_PAGES - 1} pages are lost: it reads zeros there from now on"
    )


def test_slow_client_keeps_nobody_waiting(stage: Stage) -> None:
    """While one client takes its time over its descriptor, another is served to the end."""
    daemon = stage.daemon()
    slow = stage.restorer("connect", "pid 7")
    good = stage.released()
    good.check(7, NR_PAGES)
    assert daemon.process.poll() is None
    slow.do("close")
    assert daemon.wait() == 1


def nr_fds_of_one(daemon: Daemon) -> int:
    """Return how many descriptors it has open once it serves one process, and is done with what
    came: a page is there before that, and each look at a message brings further copies."""

    def is_done() -> bool:
        fds = daemon.fds()
        names = "anon_inode:[userfaultfd]", "anon_inode:[pidfd]"
        return all(sum(fd.endswith(name) for fd in fds) == 1 for name in names)

    wait_until(is_done, lambda: f"copies of {daemon.fds()} to be closed")
    return daemon.nr_fds()


def test_many_restores_leave_no_descriptor_behind(stage: Stage) -> None:
    """Restores that overlap, good ones and bad ones, are forgotten to the last descriptor."""
    daemon = stage.daemon()
    keeper = stage.half_done()
    assert keeper.read(7, 0) == "right"
    before = nr_fds_of_one(daemon)
    for _ in range(5):
        good, other, killed, wrong = [stage.half_done() for _ in range(4)]
        assert {r.read(7, 1) for r in (good, other, killed, wrong)} == {"right"}
        assert daemon.nr_fds() > before
        killed.kill()
        wrong.do("number 7 4", "end")
        wrong.kill()
        for restorer in (good, other):
            restorer.do("word", "close")
            restorer.check(7, NR_PAGES)
        daemon.wait_for_fds(before)
    keeper.do("word", "close")
    keeper.check(7, NR_PAGES)
    assert daemon.wait() == 1


def test_bytes_after_the_final_word_lose_nothing(stage: Stage) -> None:
    """What follows the final word is an error, and no reason to give processes up that live."""
    daemon = stage.daemon(times=NO_GRACE | OFTEN)
    whole = stage.pages().read_bytes()
    stage.pages().write_bytes(b"")
    restorer = stage.half_done()
    restorer.do("word", "number 8 1", "close")
    restorer.begin_read(7, 3)
    assert restorer.waits(0.5)
    stage.pages().write_bytes(whole)
    assert restorer.page() == "7 3 right"
    restorer.check(7, NR_PAGES)
    assert daemon.wait() == 1
    assert daemon.errors[-1] == "restore 1: hand-off: b'\\x08' follows the final word"


def test_no_descriptor_left_for_a_further_restore_harms_nobody(stage: Stage) -> None:
    """A daemon that is out of descriptors says so, goes on, and accepts once there are some."""
    daemon = stage.daemon()
    served = stage.half_done()
    assert served.read(7, 0) == "right"
    _, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    # Not as many as are open: there may be gaps among their numbers.
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (NR_STANDARD_FDS, hard))
    further = stage.restorer("connect")
    daemon.wait_for_log("Too many open files")
    assert served.read(7, 1) == "right"
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    further.take_over(7, NR_PAGES)
    for restorer in (served, further):
        restorer.do("word", "close")
        restorer.check(7, NR_PAGES)
    assert daemon.wait() == 0


@pytest.mark.parametrize("nr_left", [1, 2, 3])
def test_few_descriptors_left_for_a_further_restore_harm_nobody(
    stage: Stage, nr_left: int
) -> None:
    """One that can be accepted, and cannot be begun, waits as well."""
    daemon = stage.daemon()
    served = stage.half_done()
    assert served.read(7, 0) == "right"
    _, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    open_fds = [int(path.name) for path in Path(f"/proc/{daemon.process.pid}/fd").iterdir()]
    limit = max(open_fds) + 1 + nr_left
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (limit, hard))
    # More than there are numbers, gaps among those that are in use included.
    further = [stage.restorer("connect") for _ in range(12)]
    daemon.wait_for_log("Too many open files")
    assert served.read(7, 1) == "right"
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    for restorer in further:
        restorer.take_over(7, NR_PAGES)
    for restorer in (served, *further):
        restorer.do("word", "close")
        restorer.check(7, NR_PAGES)
    assert daemon.wait() == 0


def test_no_descriptor_left_for_a_process_fails_its_restore(stage: Stage) -> None:
    """A userfaultfd that there is no room for fails the restore it belongs to, and no other."""
    daemon = stage.daemon()
    served = stage.half_done()
    assert served.read(7, 0) == "right"
    before = nr_fds_of_one(daemon)
    further = stage.restorer("connect", "pid 7")
    # Its connection, and what a next daemon will know of it.
    wait_until(lambda: daemon.nr_fds() == before + 2, lambda: "it does not begin")
    _, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (NR_STANDARD_FDS, hard))
    further.do("descriptor 7", "end")
    further.kill()
    served.do("word", "close")
    served.check(7, NR_PAGES)
    assert daemon.wait() == 1
    [error] = daemon.errors
    assert error.startswith("restore 2: ")
