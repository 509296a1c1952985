"""Another version of the daemon goes on where one has been stopped, or is found unfit before."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lazypagesd.engine.record import RecordFile
from lazypagesd.engine.restore_record import MEMFD_NAME
from lazypagesd.kernel.descriptors import target
from lazypagesd.native import lib
from tests.sanitizers import Interpreter, build, copy_package
from tests.service.daemon import DEADLINE_S, command_with
from tests.service.scene import LAZY, Scene, scene
from tests.service.serving import FINISHED, RELEASE
from tests.service.stage import BASE, NR_PAGES
from tests.support.victim import victim_program

__all__ = ["scene", "victim_program"]

pytestmark = pytest.mark.uffd

THIS = command_with({})
VERSION = lib.LPD_STATE_VERSION


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a build whose states are of the version after ours."""
    directory = tmp_path_factory.mktemp("newer")
    copy_package(directory)
    header = directory / "lazypagesd/native/state.h"
    text = header.read_text()
    ours, theirs = (f"LPD_STATE_VERSION = {number}," for number in (VERSION, VERSION + 1))
    assert text.count(ours) == 1
    header.write_text(text.replace(ours, theirs))
    interpreter = Interpreter(directory, environment={"PYTHONPATH": str(directory)})
    build(interpreter, {"LAZYPAGESD_CFLAGS": "-O0"})
    # -P: and not the one in the current directory.
    return ["/usr/bin/env", f"PYTHONPATH={directory}", sys.executable, "-P", "-m", "lazypagesd"]


def ask(command: list[str], runtime_dir: Path) -> tuple[int, str]:
    """Return what the build of *command* answers, and says."""
    done = subprocess.run(
        [*command, "can-take-over", "--runtime-dir", runtime_dir],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_upgrade_goes_on(scene: Scene, newer: list[str]) -> None:
    """A newer daemon says that it can, and does: processes that come later, and are forked,
    included; from then on the older one could not."""
    manager = scene.manager()
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    restored.check(0, 20)
    path = manager.directory / "state-version"
    answer = f"{path}: version {VERSION} can be taken over\n"
    assert ask(newer, manager.directory) == ask(THIS, manager.directory) == (0, answer)
    manager.kill()
    manager.restart(newer)
    assert path.read_text() == f"{VERSION} {VERSION + 1}\n"
    child = asyncio.run(restored.victim.fork())
    later, other = scene.handed_over(manager, pace=LAZY)
    later.do(FINISHED)
    restored.check(20, 100)
    manager.kill_and_restart()
    for victim in (restored.victim, child):
        assert asyncio.run(victim.read(BASE, NR_PAGES)) == restored.image.bytes(BASE, NR_PAGES)
    other.check()


def test_downgrade_is_refused_before(scene: Scene, newer: list[str]) -> None:
    """An older build says that it could not, while the daemon goes on."""
    manager = scene.manager(command=newer)
    client, restored = scene.handed_over(manager)
    code, message = ask(THIS, manager.directory)
    assert code == 1
    assert (
        f"the daemon leaves state of version {VERSION + 1}, and this lazypagesd takes over"
        f" version {VERSION}: leave the daemon running"
    ) in message
    client.do(FINISHED)
    client.do(RELEASE)
    restored.check()


def test_downgrade_that_is_tried_loses_nothing(scene: Scene, newer: list[str]) -> None:
    """An older build that is started nevertheless refuses to begin, and says who could; and that
    one goes on."""
    manager = scene.manager(command=newer)
    client, restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    manager.kill()
    stored = set(manager.stored)
    manager.begin_restart(THIS)
    assert manager.process.wait(DEADLINE_S) == 1
    complaint = f"Error: .*restore 1/0.*: of version {VERSION + 1}.*start the one that has"
    assert re.search(complaint, manager.log)
    assert set(manager.stored) == stored
    manager.restart(newer)
    restored.check()


def test_record_with_a_field_that_is_not_known_is_left_alone(scene: Scene) -> None:
    """Whoever has written it knows more of the restore than we do, and so we do not begin."""
    manager = scene.manager()
    client, _restored = scene.handed_over(manager, pace=LAZY)
    client.do(FINISHED)
    manager.kill()
    [fd] = [fd for fd in manager.stored.values() if MEMFD_NAME in target(fd)]
    file = RecordFile(os.dup(fd))
    message = file.read()
    assert message is not None
    file.write(message + b"\xf8\x3f\x01")  # field 1023: 1
    file.close()
    stored = set(manager.stored)
    manager.begin_restart()
    assert manager.process.wait(DEADLINE_S) == 1
    assert "a newer lazypagesd has left it: start the one that has left it" in manager.log
    assert set(manager.stored) == stored
