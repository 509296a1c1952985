"""The suite, run with one daemon.

Some facts about zdtm that this rests on: every test runs in namespaces of its own, in one of three
flavors: as the host has it (h), in further namespaces (ns), or in a user namespace as well (uns).
A test that lacks something (a feature of the kernel, say) is skipped.  Those that cannot be
restored lazily say so (``nolazy``), and are skipped with ``--lazy-pages``.  Control groups are the
machine's, so two suites at a time disturb each other.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

PASSED = "PASS"
UNFINISHED = "no verdict"
VERDICT = re.compile(
    r"=+ Run (?P<begun>\S+) in \w+ =+"
    rf"|[=#]* ?Test (?P<name>\S+) (?P<verdict>{PASSED}|FAIL .*?) ?[=#]*"
)
CAP_SYS_RESOURCE = 24  # linux/capability.h
KEPT = "if False:  # lazypagesd: root"
STUCK_S = 3600.0  # for the suite in one flavor, which takes some ten minutes
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Suite:
    """The suite in *directory*; *lazy_pages* is the program that is its ``criu lazy-pages``."""

    directory: Path
    criu: Path
    lazy_pages: Path
    log: Path
    parallel: int = 1
    options: Sequence[str] = ()

    def run(self, flavor: str, tests: str) -> dict[str, str]:
        """Return the verdict on each test that *tests*, a regular expression, matches at once."""
        if not has_capability(CAP_SYS_RESOURCE):
            keep_root(self.directory / "zdtm.py")
        with self.log.open("a") as log:
            start = log.tell()
            self._run(log, flavor, tests)
        with self.log.open(errors="replace") as log:
            log.seek(start)
            return read_verdicts(log)

    def _run(self, log: TextIO, flavor: str, tests: str) -> None:
        # Processes and mounts that a test leaves behind go away with the namespaces.
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command += ["/usr/bin/python3", "zdtm.py", "run", "--lazy-pages", "--keep-going"]
        command += ["--ignore-taint", "--keep-img", "never", "--flavor", flavor, "--tests", tests]
        command += ["--parallel", str(self.parallel)]
        command += ["--criu-bin", str(Path(__file__).with_name("criu.sh")), *self.options]
        subprocess.run(
            command,
            cwd=self.directory,
            env={
                "PATH": SYSTEM_PATH,
                "CRIU": os.fspath(self.criu),
                "LAZY_PAGES": os.fspath(self.lazy_pages),
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,  # it returns 1 if any test failed
            timeout=STUCK_S,
        )


def read_verdicts(lines: Iterable[str]) -> dict[str, str]:
    """Return what zdtm.py's output says of each test: PASS, or where it failed."""
    verdicts: dict[str, str] = {}
    for match in filter(None, map(VERDICT.fullmatch, map(str.strip, lines))):
        if match["begun"]:
            verdicts[match["begun"]] = UNFINISHED
        else:
            verdicts[match["name"]] = match["verdict"]
    return verdicts


def has_capability(number: int) -> bool:
    """Say whether we have a capability in force."""
    status = Path("/proc/self/status").read_text()
    effective = re.search("^CapEff:\t([0-9a-f]+)$", status, re.MULTILINE)
    assert effective
    return bool(int(effective[1], 16) >> number & 1)


def keep_root(suite: Path) -> None:
    """Change zdtm.py such that its tests stay root, which some ask for (``suid``) in any case.

    Asking for the limits of a process of another user, as a dump does, takes CAP_SYS_RESOURCE.
    """
    condition = "if not test_flag(self.__desc, 'suid'):"
    text = suite.read_text()
    assert condition in text or KEPT in text, f"{suite}: not the zdtm.py that is known here"
    suite.write_text(text.replace(condition, KEPT))


@contextlib.contextmanager
def userfaultfd_for_everyone() -> Iterator[None]:
    """Let processes of a user namespace open a userfaultfd, as restored ones of flavor uns do."""
    setting = Path("/proc/sys/vm/unprivileged_userfaultfd")
    before = setting.read_text()
    setting.write_text("1")
    try:
        yield
    finally:
        setting.write_text(before)
