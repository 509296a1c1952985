"""What all tests share: things that not every machine has, and what becomes of a test without.

On a developer's machine such a test is skipped, and pytest prints why.  Where LAZYPAGESD_CI=1 is
set nothing may be missing, so there a skipped test has failed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).parent.parent
IN_CI = os.environ.get("LAZYPAGESD_CI") == "1"

# The same examples every time, so that a change that fails is the one to blame; `make fuzz` and
# runs by hand look for others.
hypothesis.settings.register_profile("ci", derandomize=True)
if IN_CI:
    hypothesis.settings.load_profile("ci")

# asm/unistd_64.h and asm-generic/unistd.h
USERFAULTFD_SYSCALLS = {"x86_64": 323, "aarch64": 282}
# linux/userfaultfd.h
USERFAULTFD_IOC_NEW = 0xAA00  # _IO(USERFAULTFD_IOC, 0x00)
UFFDIO_API = 0xC018AA3F
UFFD_API = 0xAA
ALL_EVENTS = 0x4E  # EVENT_FORK, EVENT_REMAP, EVENT_REMOVE, EVENT_UNMAP


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: {reason}, and nothing may be missing in CI"


@pytest.fixture(autouse=True)
def _requirements(request: pytest.FixtureRequest) -> None:
    """Skip a test that is marked as needing what is not there."""
    if request.node.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    if request.node.get_closest_marker("uffd"):
        request.getfixturevalue("userfaultfd_allowed")
    if request.node.get_closest_marker("criu"):
        request.getfixturevalue("criu")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the directory that the project lies in."""
    return REPOSITORY


@pytest.fixture(scope="session")
def criu() -> Path:
    """Return the CRIU to test with: $CRIU, or what ``make test`` has put into .build/."""
    path = Path(os.environ.get("CRIU") or REPOSITORY / ".build/criu/criu")
    try:
        subprocess.run([path, "--version"], check=True, capture_output=True, timeout=20)
    except OSError as error:
        pytest.skip(f"{path}: {error.strerror}; set CRIU, or let `make test` fetch one")
    except subprocess.SubprocessError as error:
        pytest.skip(f"{path}: does not run ({error})")
    return path


@pytest.fixture(scope="session")
def userfaultfd_allowed() -> None:
    """Skip, with the exact reason, where no userfaultfd with all events can be had."""
    fd = open_userfaultfd()
    try:
        fcntl.ioctl(fd, UFFDIO_API, struct.pack("=3Q", UFFD_API, ALL_EVENTS, 0))
    except OSError as error:
        pytest.skip(f"UFFDIO_API: {error.strerror}: the fork event needs CAP_SYS_PTRACE")
    finally:
        os.close(fd)


@pytest.fixture
def userfaultfd(userfaultfd_allowed: None) -> Iterator[int]:
    """Open a userfaultfd, with UFFDIO_API still to be called; the fixture closes it."""
    fd = open_userfaultfd()
    yield fd
    os.close(fd)


def open_userfaultfd() -> int:
    """Return a userfaultfd, with UFFDIO_API still to be called; skip where there is none."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    libc = ctypes.CDLL(None, use_errno=True)
    number = USERFAULTFD_SYSCALLS.get(platform.machine())
    if number is None:
        pytest.skip(f"userfaultfd(2): number not known for {platform.machine()}")
    fd: int = libc.syscall(number, flags)
    if fd >= 0:
        return fd
    refused = os.strerror(ctypes.get_errno())
    try:
        with Path("/dev/userfaultfd").open("rb") as device:
            return fcntl.ioctl(device, USERFAULTFD_IOC_NEW, flags)
    except OSError as error:
        setting = _read("/proc/sys/vm/unprivileged_userfaultfd")
        pytest.skip(
            f"userfaultfd(2): {refused} and vm.unprivileged_userfaultfd={setting};"
            f" /dev/userfaultfd: {error.strerror}"
        )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        return f"({error.strerror})"
