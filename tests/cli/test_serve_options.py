"""The command line of ``lazypagesd serve``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lazypagesd.cli.main import main
from lazypagesd.cli.serve_options import read_options
from lazypagesd.cli.usage import SERVE_USAGE
from lazypagesd.service.logs import stop_log
from lazypagesd.service.options import INFORMATION, ServeConfig, ServeLimits

OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][a-z-]*")


@pytest.mark.parametrize(
    ("words", "environment", "directory"),
    [
        ([], {}, "/run/lazypagesd"),
        ([], {"RUNTIME_DIRECTORY": "/run/a:/run/b"}, "/run/a"),
        (["--runtime-dir", "d"], {"RUNTIME_DIRECTORY": "/run/a"}, "d"),
    ],
)
def test_runtime_directory(words: list[str], environment: dict[str, str], directory: str) -> None:
    """It is that of the command line, of systemd, or the default one."""
    assert read_options(words, environment).runtime_dir == Path(directory)


def test_configuration_can_be_read_again(tmp_path: Path) -> None:
    """What the file says later is what rereading returns."""
    path = tmp_path / "config"
    path.write_text("[limits]\nrestores = 1\n")
    options = read_options(["--config", str(path)], {})
    path.write_text("[limits]\nrestores = 2\n")
    assert (options.config.limits.restores, options.reread().limits.restores) == (1, 2)


def test_verbosity() -> None:
    """Each v logs more."""
    assert read_options(["-v"], {}).verbosity == INFORMATION


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "/nowhere"], "Error: /nowhere: No such file or directory\n"),
        (["--bogus"], "Error: unrecognized arguments: --bogus\n"),
    ],
)
def test_wrong_command_line_is_an_error(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one line in the log, and exit code 1."""
    assert main(["serve", *words]) == 1
    assert capsys.readouterr().err == message
    stop_log()


def test_help_and_reference_agree(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option is in both, and each key of the configuration in the reference."""
    assert main(["serve", "--help"]) == 0
    assert capsys.readouterr().out == SERVE_USAGE
    reference = (repository / "docs/reference/lazypagesd-serve.md").read_text()
    code = re.findall(r"`([^`]+)`", reference)
    assert {option for each in code for option in OPTION.findall(each)} == set(
        OPTION.findall(SERVE_USAGE)
    )
    configuration = (repository / "docs/reference/lazypagesd.toml.md").read_text()
    for field in dataclasses.fields(ServeLimits):
        assert f"| `{field.name}` | {field.default} |" in configuration
    for setting in dataclasses.fields(ServeConfig):
        assert f"`{setting.name}`" in configuration or f"[{setting.name}\\]" in configuration
