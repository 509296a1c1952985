"""SIGTERM and SIGINT, before a restore, while it hands over, and while pages are missing."""

from __future__ import annotations

import signal
import sys

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from tests.service.conftest import NR_PAGES, Stage
from tests.service.daemon import OFTEN, Daemon, wait_until
from tests.service.restorer import Restorer

pytestmark = pytest.mark.uffd

both = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


def stuck(stage: Stage) -> tuple[Daemon, Restorer, bytes]:
    """Begin a restore whose last 60 pages cannot be filled; return the pages file as it was."""
    daemon = stage.daemon("-v", times=OFTEN)
    whole = stage.pages().read_bytes()
    stage.pages().write_bytes(whole[: 4 * PAGE_SIZE])
    restorer = stage.released()
    restorer.begin_read(7, 63)
    daemon.wait_for_log("is waited for")
    wait_until(lambda: restorer.read(7, 3) == "right", lambda: "page 3")
    return daemon, restorer, whole


@both
def test_signal_during_the_hand_off_ends_both(stage: Stage, number: signal.Signals) -> None:
    """Before the final word the daemon dies at once, and the restore sees it."""
    daemon = stage.daemon()
    restorer = stage.half_done()
    assert restorer.read(7, 0) == "right"
    daemon.send(number)
    restorer.do("end")
    assert restorer.ask("word") == "Broken pipe"
    assert daemon.wait() == -number


@both
def test_signal_while_pages_are_missing_loses_none(stage: Stage, number: signal.Signals) -> None:
    """After the final word the daemon says that it goes on, delivers all, and ends with 0."""
    daemon, restorer, whole = stuck(stage)
    daemon.send(number)
    daemon.wait_for_log(
        f"Warn: {number.name}: filling the 60 pages that are missing first;"
        " a second signal gives them up"
    )
    stage.pages().write_bytes(whole)
    assert restorer.page() == "7 63 right"
    assert daemon.wait() == 0
    restorer.check(7, NR_PAGES)


@both
def test_second_signal_insists(stage: Stage, number: signal.Signals) -> None:
    """The daemon dies of the second signal, and says how many pages of which process are lost."""
    daemon, _restorer, _whole = stuck(stage)
    daemon.send(number)
    daemon.wait_for_log("a second signal gives them up")
    daemon.send(number)
    assert daemon.wait() == -number
    assert daemon.errors[-1] == (
        "process restore 1/7: 60 pages are lost: it reads zeros there from now on"
    )


def test_other_signal_insists_as_well(stage: Stage) -> None:
    """The second signal need not be the first once more."""
    daemon, _restorer, _whole = stuck(stage)
    daemon.send(signal.SIGTERM)
    daemon.wait_for_log("a second signal gives them up")
    daemon.send(signal.SIGINT)
    assert daemon.wait() == -signal.SIGINT


def test_nobody_is_accepted_any_more(stage: Stage) -> None:
    """While the daemon finishes, a further restore is refused."""
    daemon, restorer, whole = stuck(stage)
    daemon.send(signal.SIGTERM)
    daemon.wait_for_log("SIGTERM")
    late = stage.restorer()
    wait_until(lambda: late.ask("connect") == "Connection refused", lambda: "refusal")
    stage.pages().write_bytes(whole)
    assert restorer.page() == "7 63 right"
    assert daemon.wait() == 0


def test_process_that_dies_lets_the_stopping_daemon_go(stage: Stage) -> None:
    """A daemon that finishes ends with 0 when nobody is left to finish for."""
    daemon, restorer, _whole = stuck(stage)
    daemon.send(signal.SIGTERM)
    daemon.wait_for_log("SIGTERM")
    restorer.kill()
    assert daemon.wait() == 0


@both
def test_final_word_that_is_unread_counts(stage: Stage, number: signal.Signals) -> None:
    """A restore that has said its final word, though the daemon had no time to listen, is served
    to the end: it has gone on."""
    daemon = stage.daemon()
    connected = stage.half_done()
    assert connected.read(7, 0) == "right"
    daemon.send(signal.SIGSTOP)
    connected.do("word", "close")
    in_backlog = stage.released()
    daemon.send(number)
    daemon.send(signal.SIGCONT)
    assert daemon.wait() == 0
    connected.check(7, NR_PAGES)
    in_backlog.check(7, NR_PAGES)


# Brings in what serves restores once the file argv[1] is there.
LATE = """
import os, sys, time
class Late:
    def find_spec(self, name, path, target=None):
        while name == "lazypagesd.service.criu_restores" and not os.path.exists(sys.argv[1]):
            time.sleep(0.001)
sys.meta_path.insert(0, Late())
from lazypagesd.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


# Is held up as soon as it has said that it is ready, until the file argv[1] is there.
HELD_UP = """
import os, sys, time
def write(fd, data, write=os.write):
    written = write(fd, data)
    while data == b"\\0" and not os.path.exists(sys.argv[1]):
        time.sleep(0.001)
    return written
os.write = write
from lazypagesd.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@both
@pytest.mark.parametrize("script", [HELD_UP, LATE], ids=["held up", "late"])
def test_restore_that_is_quicker_than_the_daemon_counts(
    stage: Stage, number: signal.Signals, script: str
) -> None:
    """One that was over before the daemon, which had said that it is ready, could accept anybody,
    is served to the end as well."""
    come = stage.work / "come"
    daemon = stage.start(command=[sys.executable, "-c", script, str(come)])
    daemon.wait_ready()
    in_backlog = stage.released()
    daemon.send(number)
    assert daemon.process.poll() is None
    come.touch()
    assert daemon.wait() == 0
    in_backlog.check(7, NR_PAGES)


# Gets the signal argv[1] argv[2] turns of the event loop after a restore's end.
AT_THE_END = """
import asyncio, os, sys
from lazypagesd.cli.main import main
from lazypagesd.engine.restore import Restore
async def wait_ended(restore, wait=Restore.wait_ended):
    await wait(restore)
    come(int(sys.argv[2]))
def come(turns):
    if turns:
        asyncio.get_running_loop().call_soon(come, turns - 1)
    else:
        os.kill(os.getpid(), int(sys.argv[1]))
Restore.wait_ended = wait_ended
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize("turns", range(5))
def test_signal_at_the_end_changes_nothing(stage: Stage, turns: int) -> None:
    """Whenever a daemon gets it that has served all, but not yet ended, it ends with 0."""
    number = str(int(signal.SIGTERM))
    daemon = stage.start(command=[sys.executable, "-c", AT_THE_END, number, str(turns)])
    daemon.wait_ready()
    restorer = stage.released()
    assert daemon.wait() == 0
    restorer.check(7, NR_PAGES)


def test_unfinished_restore_is_ended_while_another_is_finished(stage: Stage) -> None:
    """The one without its final word is let go of at once, and the other is served to the end."""
    daemon, restorer, whole = stuck(stage)
    unfinished = stage.half_done()
    assert unfinished.read(7, 0) == "right"
    daemon.send(signal.SIGTERM)
    unfinished.do("end")
    unfinished.kill()
    assert daemon.process.poll() is None
    stage.pages().write_bytes(whole)
    assert restorer.page() == "7 63 right"
    assert daemon.wait() == 0
    restorer.check(7, NR_PAGES)
    assert "restore 2: ended before it was complete" in daemon.log


def test_signal_before_the_first_record_ends_both(stage: Stage) -> None:
    """A restore that has but connected counts no more than none."""
    daemon = stage.daemon("-v")
    restorer = stage.restorer("connect")
    daemon.wait_for_log("begun by user")
    daemon.send(signal.SIGTERM)
    restorer.do("end")
    assert daemon.wait() == -signal.SIGTERM


@both
def test_signal_before_a_restore_ends_it(stage: Stage, number: signal.Signals) -> None:
    """With nothing handed over, the daemon dies of the signal at once."""
    daemon = stage.daemon()
    daemon.send(number)
    assert daemon.wait() == -number
    assert daemon.log == ""
