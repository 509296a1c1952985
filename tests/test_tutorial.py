"""The tutorial does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.criu.conftest import criu

__all__ = ["criu"]

pytestmark = [pytest.mark.criu, pytest.mark.root]

# In mounts of its own, where no other daemon has its sockets.
PROLOGUE = "set -eum; mount -t tmpfs tmpfs /run; cd {directory}; export PATH={path}:$PATH\n"
NAMESPACES = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def commands(text: str) -> str:
    """Return the code of a page, which is indented by four."""
    lines = (line[4:] for line in text.splitlines() if line.startswith("    "))
    return "\n".join(lines) + "\n"


def test_tutorial_can_be_followed(repository: Path, criu: Path, tmp_path: Path) -> None:
    """Every command works, and the process goes on counting to the end."""
    text = (repository / "docs/tutorial.md").read_text()
    path = f"{criu.parent}:{Path(sys.executable).parent}"
    script = PROLOGUE.format(directory=tmp_path, path=path) + commands(text)
    done = subprocess.run(
        ["unshare", *NAMESPACES, "bash", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = map(int, re.findall(r"^\d+$", done.stdout, flags=re.MULTILINE)[:2])
    assert before < after
    assert "restore 1 (criu)" in done.stdout
    # On a busy machine it may be seen while it waits for its next page.
    assert re.search(r"^session 1/\d+: serving$", done.stdout, flags=re.MULTILINE)
    assert re.search(
        r"^because: .*(waits for nothing of ours|are on their way|is being read)",
        done.stdout,
        flags=re.MULTILINE,
    )
    assert "100 % of" in done.stderr
    assert "<h1>restore 1 (criu)</h1>" in (tmp_path / "report.html").read_text()
