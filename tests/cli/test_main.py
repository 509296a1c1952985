"""The command lazypagesd, up to where the service takes over."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

import lazypagesd
from lazypagesd.cli.main import main
from lazypagesd.cli.usage import CAN_TAKE_OVER_USAGE, LAZY_PAGES_USAGE, USAGE
from lazypagesd.errors import ImageError
from lazypagesd.native import lib
from lazypagesd.service.logs import stop_log
from lazypagesd.service.options import DropinOptions

Run = Callable[[DropinOptions], int]

# Of states.
NOW = int(lib.LPD_STATE_VERSION)
LAST, NEXT = NOW - 1, NOW + 1


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CRIU_CONFIG_FILE", raising=False)
    yield
    stop_log()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Return a function that puts another in the place of service.dropin.run()."""

    def replace(run: Run) -> None:
        module = ModuleType("lazypagesd.service.dropin")
        module.__dict__["run"] = run
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return replace


def test_options_reach_the_service(service: Callable[[Run], None]) -> None:
    """main() returns what the service returns for the options it was given."""
    seen = []
    service(lambda options: seen.append(options) or 7)  # type: ignore[func-returns-value]
    assert main(["-D", "img", "lazy-pages", "-d"]) == 7
    assert seen == [DropinOptions(images_dir=Path("img"), work_dir=Path("img"), daemon=True)]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImageError("mm-5.img", "no such file"), "Error: mm-5.img: no such file\n"),
        (FileNotFoundError(2, "No such file or directory", "img"), "Error: img: No such file"),
        (OSError("what else"), "Error: what else\n"),
    ],
)
def test_failure_of_the_service_is_logged(
    service: Callable[[Run], None],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    message: str,
) -> None:
    """Our own errors and the system's are one line in the log, and exit code 1."""

    def fail(options: DropinOptions) -> int:
        raise error

    service(fail)
    assert main(["lazy-pages"]) == 1
    assert capsys.readouterr().err.startswith(message)


def test_wrong_option_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that cannot be read ends with 1, before the service is asked."""
    assert main(["lazy-pages", "-D"]) == 1
    assert capsys.readouterr().err == "Error: -D: needs a value\n"


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        (f"{NOW} {NOW}", 0, f"/state-version: version {NOW} can be taken over\n"),
        (
            f"{NOW} {NEXT}",
            1,
            f"/state-version: the daemon leaves state of versions {NOW} to {NEXT},",
        ),
        (
            f"{LAST} {NOW}",
            1,
            f"/state-version: the daemon leaves state of versions {LAST} to {NOW},",
        ),
        ("", 1, "/state-version: not two versions (b'')\n"),
        (None, 1, "/state-version: No such file or directory\n"),
    ],
)
def test_can_take_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], said: str | None, code: int, message: str
) -> None:
    """What the daemon has said decides; where nothing is known, the answer is no."""
    if said is not None:
        (tmp_path / "state-version").write_text(said)
    assert main(["can-take-over", "--runtime-dir", str(tmp_path)]) == code
    captured = capfd.readouterr()
    assert f"{tmp_path}{message}" in (captured.err if code else captured.out)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--help"], USAGE),
        (["lazy-pages", "--help"], LAZY_PAGES_USAGE),
        (["can-take-over", "--help"], CAN_TAKE_OVER_USAGE),
        (["-h", "lazy-pages", "--bogus", "-D"], LAZY_PAGES_USAGE),
        (["--version"], f"lazypagesd {lazypagesd.__version__}\n"),
        (["-V"], f"lazypagesd {lazypagesd.__version__}\n"),
    ],
)
def test_help_and_version_are_printed(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They go to stdout, with exit code 0, whatever else is wrong."""
    assert main(words) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cli.main", {"asyncio", "google.protobuf", "rich", "cffi", "lazypagesd.native"}),
        ("service.dropin", {"asyncio", "subprocess", "lazypagesd.engine.engine"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str, heavy: set[str]) -> None:
    """What takes long to import is left to the service, so that a wrong option is said at once;
    and what serves a restore, until one may connect."""
    code = f"import lazypagesd.{module}, sys; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert heavy.isdisjoint(imported)


def test_drop_in_imports_no_tls() -> None:
    """asyncio would, and it takes long."""
    code = (
        "from lazypagesd.service import process, dropin; process.leave_out_tls();"
        " from lazypagesd.service import criu_restores; import sys;"
        " print('asyncio' in sys.modules, '_ssl' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_module_is_the_command() -> None:
    """`python -m lazypagesd` does the same."""
    command = [sys.executable, "-m", "lazypagesd", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"lazypagesd {lazypagesd.__version__}\n"


def test_error_about_nothing_tells_where_it_was(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An error of the kernel's without a file comes with its traceback; one with a file does not,
    and nor does one that says itself what is wrong."""

    def fails(error: OSError) -> str:
        def read_options(words: object, environ: object) -> NoReturn:
            raise error

        monkeypatch.setattr("lazypagesd.cli.main.read_options", read_options)
        assert main(["lazy-pages"]) == 1
        return capfd.readouterr().err

    traced = fails(OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
    assert traced.startswith("Error: No such file or directory\nTraceback")
    assert "in read_options" in traced
    named = OSError(errno.ENOENT, os.strerror(errno.ENOENT), "images")
    assert fails(named) == "Error: images: No such file or directory\n"
    said = OSError(errno.EMFILE, "worker 0: Too many open files")
    assert fails(said) == "Error: worker 0: Too many open files\n"


OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][a-z-]*")


def test_help_and_reference_name_the_same_options(repository: Path) -> None:
    """Every option that one of them has, the other has too."""
    reference = (repository / "docs/reference/lazypagesd-lazy-pages.md").read_text()
    said = set(OPTION.findall(LAZY_PAGES_USAGE))
    written = {
        option for code in re.findall(r"`([^`]+)`", reference) for option in OPTION.findall(code)
    }
    assert said - written == set()
    assert written - said == set()


def test_help_and_reference_of_can_take_over_agree(repository: Path) -> None:
    """Every option that one of them has, the other has too."""
    reference = (repository / "docs/reference/lazypagesd-can-take-over.md").read_text()
    code = re.findall(r"`([^`]+)`", reference)
    assert {option for each in code for option in OPTION.findall(each)} == set(
        OPTION.findall(CAN_TAKE_OVER_USAGE)
    )
