"""A container that runc restores with ``--lazy-pages``, as its manual says, comes back whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.criu.daemon import Daemon
from tests.criu.harness import Tally
from tests.criu.waiting import DEADLINE_S, wait_until
from tests.service.serving import Server

pytestmark = [pytest.mark.criu, pytest.mark.root]

NR_MIB = 64
# Without a network: CRIU would want iptables.
NAMESPACES = ["pid", "mount", "ipc", "uts"]


class Container:
    """A container with the plain victim in it; close() removes it."""

    def __init__(self, runc: str, criu: Path, directory: Path) -> None:
        self.directory = directory
        self.rootfs = directory / "bundle/rootfs"
        self.rootfs.mkdir(parents=True)
        self._runc = [runc, "--root", str(directory / "state"), "--criu", str(criu)]
        self._log = directory / "runc.log"
        self.name = f"lazypagesd-{directory.name}"

    def configure(self, *args: str) -> None:
        """Write a config.json that runs *args*."""
        self.run("spec", "--bundle", self.rootfs.parent)
        path = self.rootfs.parent / "config.json"
        config = json.loads(path.read_text())
        config["process"] |= {"terminal": False, "args": args}
        config["root"]["readonly"] = False
        config["linux"]["namespaces"] = [{"type": name} for name in NAMESPACES]
        path.write_text(json.dumps(config))

    def run(self, *words: str | Path) -> None:
        """Run runc with *words*; fail with what it said."""
        # Nothing of ours may be a descriptor of the container's, which CRIU would have to find.
        command = [*self._runc, "--log", str(self._log), *map(str, words)]
        devnull = subprocess.DEVNULL
        done = subprocess.run(
            command, stdin=devnull, stdout=devnull, stderr=devnull, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, f"runc {words[0]}: {self._log.read_text()}"

    def close(self) -> None:
        """End what runs in it."""
        subprocess.run([*self._runc, "delete", "-f", self.name], check=False, timeout=DEADLINE_S)


@pytest.fixture
def container(criu: Path, tmp_path: Path) -> Iterator[Container]:
    """A container that is not started; skip where runc cannot make one."""
    runc = shutil.which("runc")
    if runc is None:
        pytest.skip("no runc (Debian has it in the package runc)")
    container = Container(runc, criu, tmp_path)
    source = Path(__file__).parent / "victims/plain.c"
    # There is no library in the container.
    command = ["cc", "-O2", "-static", "-o"]
    subprocess.run([*command, container.rootfs / "victim", source], check=True, timeout=60)
    yield container
    container.close()


def checkpoint(container: Container) -> tuple[Path, Path]:
    """Run a container and dump it; return the directories of its images and of CRIU's work."""
    images, work = container.directory / "images", container.directory / "work"
    work.mkdir()
    container.configure("/victim", "/", str(NR_MIB), "1")
    container.run("run", "-d", "--bundle", container.rootfs.parent, container.name)
    wait_until((container.rootfs / "ready").exists, "victim's memory")
    container.run("checkpoint", "--image-path", images, "--work-path", work, container.name)
    return images, work


def restore(container: Container, images: Path, work: Path) -> None:
    """Restore it, and see that each page is right, of which some are touched at once."""
    rootfs = container.rootfs
    paths: list[str | Path] = ["--image-path", images, "--work-path", work]
    (rootfs / "go").touch()
    container.run(
        "restore", "-d", "--lazy-pages", "--bundle", rootfs.parent, *paths, container.name
    )
    wait_until((rootfs / "plain").exists, "victim's report")
    tally = Tally.read(rootfs / "plain")
    assert (tally.nr_pages, tally.nr_wrong) == (NR_MIB * 256, 0), tally


def nr_faults(log: str) -> int:
    """Return how many faults a daemon says that it has served."""
    [number] = re.findall(r"([0-9]+) faults served", log)[:1]
    return int(number)


def test_container_is_restored(container: Container, lazy_pages_command: list[str]) -> None:
    """Each page of a container is right after runc checkpoint and restore around the daemon, and
    some were faulted at."""
    images, work = checkpoint(container)
    where = ["-D", str(images), "-W", str(work)]
    daemon = Daemon([*lazy_pages_command, *where, "-v3"], container.directory / "daemon.log")
    try:
        daemon.wait_ready()
        restore(container, images, work)
        assert daemon.wait() == 0, daemon.output.read_text()
    finally:
        daemon.close()
    assert nr_faults(daemon.output.read_text()) > 0


def test_container_is_restored_by_the_service(container: Container) -> None:
    """The same with the daemon that stays, which is told of the images before: of one container
    it has nothing open any more when that is whole."""
    images, work = checkpoint(container)
    server = Server(container.directory)
    try:
        before = server.fds()
        words: list[str | Path] = ["serve", "criu", "-D", images, "-W", work]
        command = [sys.executable, "-m", "lazypagesd.client.ctl", *words, "--socket", server.path]
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=DEADLINE_S, check=True)
        restore(container, images, work)
        server.wait_for_log("restore 1 (criu): ended")
        server.wait_for_fds(before)
        # Its figures are the last that is said of it, in lines of their own.
        server.wait_for_log("faults served")
    finally:
        server.close()
    assert nr_faults(server.log) > 0
