"""What criu's options come to for the drop-in."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from lazypagesd.cli.lazy_pages_options import read_options
from lazypagesd.engine.pace import EAGER, LAZY, Pace
from lazypagesd.errors import ConfigError
from lazypagesd.service.options import DropinOptions


def options(*words: str) -> DropinOptions:
    """Read *words* with no configuration file about."""
    return read_options(["--no-default-config", "lazy-pages", *words], {})


def test_defaults_are_those_of_criu() -> None:
    """Without options: images and work here, log to stderr at 2, stay in the foreground."""
    assert options() == DropinOptions(images_dir=Path(), work_dir=Path(), verbosity=2)


def test_each_option_reaches_the_dropin() -> None:
    """Everything that concerns lazy-pages is passed on."""
    words = [
        "-D",
        "img",
        "-W",
        "work",
        "-o",
        "log",
        "-v4",
        "-d",
        "--pidfile",
        "pid",
        "--status-fd",
        "7",
    ]
    assert options(*words, "--action-script=a", "--action-script", "b") == DropinOptions(
        images_dir=Path("img"),
        work_dir=Path("work"),
        log_file="log",
        verbosity=4,
        daemon=True,
        pidfile="pid",
        status_fd=7,
        action_scripts=("a", "b"),
    )


def test_work_dir_is_the_images_dir_unless_given() -> None:
    """-W defaults to -D."""
    assert options("-D", "img").work_dir == Path("img")


@pytest.mark.parametrize(
    ("words", "pace"),
    [
        ("", EAGER),
        ("--drain eager", EAGER),
        ("--drain=lazy", LAZY),
        ("--drain lazy --drain 64M", Pace(64 * 2**20)),
    ],
)
def test_pace_is_eager_unless_given(words: str, pace: Pace) -> None:
    """criu's behaviour is the default, and the last word counts."""
    assert options(*words.split()).pace == pace


@pytest.mark.parametrize(
    ("words", "verbosity"),
    [
        ("", 2),
        ("-v", 3),
        ("-v -v", 4),
        ("-vv", 4),
        ("-vvv", 5),
        ("-v0", 0),
        ("-v4 -v2 -v", 3),
        ("--verbosity", 3),
        ("--verbosity=1", 1),
    ],
)
def test_verbosity_counts_from_two(words: str, verbosity: int) -> None:
    """-v adds, -vN sets."""
    assert options(*words.split()).verbosity == verbosity


@pytest.mark.parametrize(
    ("words", "daemon"),
    [
        ("--daemon", True),
        ("-d", True),
        ("--restore-detached", True),
        ("-d --no-daemon", False),
        ("--no-restore-detached --daemon", True),
    ],
)
def test_daemon_has_two_names(words: str, daemon: bool) -> None:
    """The last mention of either name decides."""
    assert options(*words.split()).daemon is daemon


def test_options_of_other_commands_have_no_effect() -> None:
    """What only dump or restore would look at is accepted in silence."""
    others = "-t 5 --lazy-pages --tcp-established -j -L lib --external mnt[] --log-pid --port 9"
    assert options(*others.split()) == options()


def test_auto_dedup_is_ignored_with_a_warning() -> None:
    """The images stay whole, and the log says that they were meant not to."""
    (warning,) = options("--auto-dedup").warnings
    assert warning.startswith("--auto-dedup: ")
    assert options("--auto-dedup", "--no-auto-dedup").warnings == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no command given; the one there is: lazy-pages"),
        ("dump", "dump: no command of lazypagesd; the one there is: lazy-pages"),
        ("lazy-pages 4", "lazy-pages: takes options only ('4')"),
        ("lazy-pages --status-fd x", "--status-fd: is not a number ('x')"),
        (
            "lazy-pages --drain fast",
            "--drain: is neither eager, nor lazy, nor bytes a second such as 64M ('fast')",
        ),
        ("lazy-pages -vx", "--verbosity: is not a number ('x')"),
        ("lazy-pages --stream", "--stream: lazy-pages cannot read images from a stream"),
        (
            "lazy-pages --page-server --port 9",
            "--page-server: not supported yet; copy the images here, or use criu lazy-pages",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(words: str, message: str) -> None:
    """The message names the option and what is wrong with it."""
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_options(["--no-default-config", *words.split()], {})


@pytest.mark.parametrize("option", ["-v", "--status-fd="])
@pytest.mark.parametrize("number", [str(2**31), "9" * 5000], ids=["2^31", "5000 digits"])
def test_number_is_refused_when_larger_than_an_int(option: str, number: str) -> None:
    """criu's numbers are ints: a larger one would be an error of Python's later, or at once."""
    with pytest.raises(ConfigError, match=r"^--[a-z-]+: is too large"):
        options(option + number)


def test_zeros_before_a_number_count_nothing() -> None:
    """However many there are, it is the same number."""
    assert options("--status-fd", "0" * 5000 + "7").status_fd == 7


def test_later_source_overrides_earlier(tmp_path: Path) -> None:
    """Home, environment, --config, command line: the last that names an option has it."""
    home = tmp_path / ".criu"
    home.mkdir()
    (home / "default.conf").write_text("log-file home\npidfile home\nverbosity=3\n")
    environments, given = tmp_path / "env.conf", tmp_path / "given.conf"
    environments.write_text("log-file env\nstatus-fd 3\npidfile env\naction-script a\n")
    given.write_text("log-file given\nstatus-fd 4\n")
    environment = {"HOME": str(tmp_path), "CRIU_CONFIG_FILE": str(environments)}

    by_default = read_options(["lazy-pages", "-v", "-o", "words"], environment)
    assert (by_default.log_file, by_default.pidfile) == ("words", "env")
    assert (by_default.verbosity, by_default.status_fd) == (4, 3)

    words = ["lazy-pages", "--config", str(given), "--action-script", "b"]
    by_config = read_options(words, environment)
    assert (by_config.log_file, by_config.pidfile) == ("given", "env")
    assert (by_config.verbosity, by_config.status_fd) == (2, 4)
    assert by_config.action_scripts == ("a", "b")


@pytest.mark.criu
@pytest.mark.root
@pytest.mark.parametrize(
    "words", ["", "--no-default-config", "--config given.conf", "-o words", "--config none.conf"]
)
def test_log_file_is_the_one_that_criu_takes(criu: Path, tmp_path: Path, words: str) -> None:
    """CRIU, given the same files and words, makes the log file that we would."""
    (tmp_path / ".criu").mkdir()
    for name in ".criu/default.conf", "env.conf", "given.conf":
        (tmp_path / name).write_text(f"log-file {name.split('.')[0] or 'home'}\n")
    for variables in {"HOME": str(tmp_path)}, {"HOME": "/", "CRIU_CONFIG_FILE": "env.conf"}:
        command = [str(criu), "lazy-pages", *words.split()]
        # The directory has no images, which is what this CRIU stops at.
        subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, timeout=20, check=False
        )
        made = {path.name for path in tmp_path.iterdir()} & {"home", "env", "given", "words"}
        for name in made:
            (tmp_path / name).unlink()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            ours = read_options(["lazy-pages", *words.split()], variables).log_file
        assert made == ({ours} if ours else set())
