"""Reading configuration files as criu reads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lazypagesd.cli.criu_config import LONGEST, config_files, read_config
from lazypagesd.cli.criu_options import Setting, parse_words
from lazypagesd.errors import ConfigError

ETC = Path("/etc/criu/default.conf")
HOME = Path("/home/me/.criu/default.conf")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return where a configuration file may be written."""
    return tmp_path / "criu.conf"


@pytest.mark.parametrize(
    ("words", "environment", "files"),
    [
        ([], {"HOME": "/home/me"}, [ETC, HOME]),
        ([], {}, [ETC]),
        ([], {"HOME": "/home/me", "CRIU_CONFIG_FILE": "e"}, [ETC, HOME, Path("e")]),
        (["--no-default-config"], {"HOME": "/home/me", "CRIU_CONFIG_FILE": "e"}, [Path("e")]),
        (["--config", "c"], {"HOME": "/home/me", "CRIU_CONFIG_FILE": "e"}, [Path("e"), Path("c")]),
        (["--config=b", "--config=c"], {}, [Path("c")]),
    ],
)
def test_files_are_read_in_the_order_of_criu(
    words: list[str], environment: dict[str, str], files: list[Path]
) -> None:
    """First the defaults, unless they are not wanted, then the environment's, then --config's."""
    assert list(config_files(parse_words(words), environment)) == files


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", []),
        ("# log-file x\n\n   \n", []),
        ("log-file x", [Setting("log-file", "x")]),
        ("  log-file \t x  # why\n", [Setting("log-file", "x")]),
        ("log-file x\r\n", [Setting("log-file", "x")]),
        ("log-file=x\n", [Setting("log-file", "x")]),
        ("log-file x#y\n", [Setting("log-file", "x")]),
        ('log-file "x y"\n', [Setting("log-file", "x y")]),
        ("log-file 'x # y'\n", [Setting("log-file", "x # y")]),
        ('log-file "x\\"y"\n', [Setting("log-file", 'x"y')]),
        ("daemon\nno-daemon\n", [Setting("daemon"), Setting("daemon", on=False)]),
        ("verbosity=4\n", [Setting("verbosity", "4")]),
    ],
)
def test_file_is_read_line_by_line(config: Path, text: str, settings: list[Setting]) -> None:
    """A line is an option without dashes, and its value."""
    config.write_text(text)
    parsed = read_config(config)
    assert parsed.settings == settings
    assert parsed.warnings == []


@pytest.mark.parametrize(
    ("text", "settings", "warning"),
    [
        ("verbosity 4", [Setting("verbosity")], "verbosity takes no value after a space ('4')"),
        ("daemon yes", [Setting("daemon")], "daemon takes no value after a space ('yes')"),
        ("newer x", [], "--newer: no option that lazypagesd knows"),
    ],
)
def test_what_has_no_effect_is_warned_of(
    config: Path, text: str, settings: list[Setting], warning: str
) -> None:
    """A value that criu drops, and an option that we do not know, are named with their line."""
    config.write_text(f"\n{text}\n")
    parsed = read_config(config)
    assert parsed.settings == settings
    assert parsed.warnings == [f"{config}:2: {warning}, ignoring"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log-file", "--log-file: needs a value"),
        ("log-file x y", "more than an option and its value ('y'); quote the value"),
        ('log-file "x', "No closing quotation"),
        ("--log-file x", "options are written without dashes here ('--log-file')"),
        ("daemon=yes", "--daemon: does not take a value ('yes')"),
        ("log-file x\0y", "a zero byte is in it: is this a text file?"),
    ],
)
def test_wrong_line_is_refused_by_file_and_line(config: Path, text: str, message: str) -> None:
    """The error says where it is."""
    config.write_text(f"\n# ok\n{text}\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{config}:3: {message}')}$"):
        read_config(config)


def test_file_is_refused_when_it_does_not_end(config: Path) -> None:
    """Of a file without end, as some devices are, no more is read than a configuration can be."""
    config.write_text("#" * LONGEST)
    assert read_config(config).settings == []
    config.write_text("#" * (LONGEST + 1))
    with pytest.raises(ConfigError, match=f"^{config}: more than {LONGEST} characters"):
        read_config(config)


def test_missing_file_says_nothing(config: Path) -> None:
    """A file that is not there is passed over, as criu does, also one that was asked for."""
    parsed = read_config(config)
    assert (parsed.settings, parsed.warnings) == ([], [])


def test_unreadable_file_is_warned_of(config: Path) -> None:
    """What is there and cannot be read is named."""
    config.mkdir()
    assert read_config(config).warnings == [f"{config}: Is a directory, ignoring"]
