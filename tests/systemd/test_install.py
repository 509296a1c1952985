"""What `make install` leaves, and what `make uninstall` does not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lazypagesd import __version__
from lazypagesd.service.journal import MessageId
from tests.systemd.bed import Bed
from tests.systemd.conftest import make

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.timeout(400)]


def files_below(directory: Path) -> set[str]:
    """Return all that is no directory."""
    found = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    return {os.fspath(path.relative_to(directory)) for path in found}


def contents(path: Path) -> bytes:
    """Return what is in a file, or where a link leads."""
    return os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()


def test_nothing_runs_from_where_it_was_made(installed: Path) -> None:
    """No program, unit or setting names the directory that it was installed below, which a
    package is built in and which is not there later."""
    compiled = re.compile(r"\.(pyc|so)$")
    texts = [name for name in files_below(installed) if not compiled.search(name)]
    assert [n for n in texts if os.fsencode(installed) in contents(installed / n)] == []
    units = installed / "usr/lib/systemd/system"
    assert not any(re.search(r"@[A-Z]+@", unit.read_text()) for unit in units.iterdir())


def test_commands_run_in_place(bed: Bed) -> None:
    """Both commands are on the PATH and run with what was installed beside them, by a user who
    sees nothing of root's."""
    assert bed.run("lazypagesd", "--version") == f"lazypagesd {__version__}"
    assert "usage" in bed.run("runuser", "-u", "nobody", "--", "lazypagesctl", "--help").lower()


def test_uninstall_removes_everything(repository: Path, installed: Path, tmp_path: Path) -> None:
    """What was installed is gone, and what was there before is not."""
    copy = tmp_path / "copy"
    shutil.copytree(installed, copy, symlinks=True)
    (copy / "usr/bin/other").touch()
    make(repository, "uninstall", copy)
    assert files_below(copy) == {"usr/bin/other"}


def test_missing_tools_are_named(repository: Path, tmp_path: Path) -> None:
    """Without a compiler nothing is installed, and what to install is said."""
    for tool in ("bash", "dirname", "cat"):
        (tmp_path / tool).symlink_to(Path(shutil.which(tool) or ""))
    done = subprocess.run(
        [repository / "systemd/install.sh", "install"],
        env={"PATH": os.fspath(tmp_path), "DESTDIR": os.fspath(tmp_path / "destination")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert re.search("missing: apt-get install .*gcc.* pkg-config", done.stderr)
    assert not (tmp_path / "destination").exists()


def test_message_ids_are_documented(repository: Path) -> None:
    """The reference has every event that may be alerted on, and no other one."""
    text = (repository / "docs/reference/lazypagesd-service.md").read_text()
    assert re.findall(r"^\| ([0-9a-f]{32}) \|", text, flags=re.MULTILINE) == list(MessageId)
    catalog = (repository / "systemd/lazypagesd.catalog").read_text()
    assert re.findall(r"^-- ([0-9a-f]{32})$", catalog, flags=re.MULTILINE) == list(MessageId)


def test_catalog_can_be_read(repository: Path, tmp_path: Path) -> None:
    """`journalctl -x` finds a text for each event, once the catalog is updated."""
    if shutil.which("journalctl") is None:
        pytest.skip("journalctl: not installed")
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(repository / "systemd/lazypagesd.catalog", place)
    journalctl = ["journalctl", "--root", os.fspath(tmp_path)]
    subprocess.run([*journalctl, "--update-catalog"], timeout=60, check=True)
    done = subprocess.run(
        [*journalctl, "--list-catalog"], capture_output=True, text=True, timeout=60, check=True
    )
    listed = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert listed.keys() == set(MessageId)
    assert all("lazypagesd: " in subject for subject in listed.values())
