"""Reading a command line as criu reads it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from lazypagesd.cli.criu_options import (
    CRIU_OPTIONS,
    LONG,
    OWN_OPTIONS,
    SHORT,
    Arity,
    Setting,
    parse_words,
)
from lazypagesd.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--images-dir=x"], [Setting("images-dir", "x")]),
        (["--images-dir", "x"], [Setting("images-dir", "x")]),
        (["--images-dir="], [Setting("images-dir", "")]),
        (["--images-dir", "--daemon"], [Setting("images-dir", "--daemon")]),
        (["-Dx"], [Setting("images-dir", "x")]),
        (["-D", "x"], [Setting("images-dir", "x")]),
        (["-D", "-d"], [Setting("images-dir", "-d")]),
        (["--im", "x"], [Setting("images-dir", "x")]),
        (["--no-auto", "--auto"], [Setting("auto-dedup", on=False), Setting("auto-dedup")]),
        (["--tls"], [Setting("tls")]),
        (["-d"], [Setting("restore-detached")]),
        (
            ["-dlDx"],
            [Setting("restore-detached"), Setting("file-locks"), Setting("images-dir", "x")],
        ),
        (["-v"], [Setting("verbosity")]),
        (["-vvv"], [Setting("verbosity", "vv")]),
        (["-v4"], [Setting("verbosity", "4")]),
        (["-dv4"], [Setting("restore-detached"), Setting("verbosity", "4")]),
        (["--verbosity"], [Setting("verbosity")]),
        (["--verbosity=4"], [Setting("verbosity", "4")]),
        (["--", "-d"], []),
    ],
)
def test_option_is_read_in_every_form(words: list[str], settings: list[Setting]) -> None:
    """Each form that getopt_long(3) takes gives the same setting."""
    assert parse_words(words).settings == settings


@pytest.mark.parametrize(
    "words",
    [
        ["lazy-pages", "-D", "x", "-d"],
        ["-D", "x", "lazy-pages", "-d"],
        ["-D", "x", "-d", "lazy-pages"],
        ["-D", "x", "-d", "--", "lazy-pages"],
    ],
)
def test_command_may_stand_anywhere(words: list[str]) -> None:
    """The words that are neither option nor value are found between them."""
    parsed = parse_words(words)
    assert parsed.operands == ["lazy-pages"]
    assert parsed.settings == [Setting("images-dir", "x"), Setting("restore-detached")]


def test_optional_value_is_not_the_next_word() -> None:
    """``-v 4`` is ``-v`` and a word too many, as in criu."""
    parsed = parse_words(["-v", "4"])
    assert parsed.settings == [Setting("verbosity")]
    assert parsed.operands == ["4"]


@pytest.mark.parametrize(
    ("words", "settings", "operands"),
    [
        (["--newer", "lazy-pages"], [], ["lazy-pages"]),
        (["--newer", "value", "lazy-pages"], [], ["lazy-pages"]),
        (["--newer=value", "lazy-pages"], [], ["lazy-pages"]),
        (["lazy-pages", "--newer", "-d"], [Setting("restore-detached")], ["lazy-pages"]),
        (["-dZ9", "lazy-pages"], [Setting("restore-detached")], ["lazy-pages"]),
    ],
)
def test_unknown_option_is_passed_over_with_a_warning(
    words: list[str], settings: list[Setting], operands: list[str]
) -> None:
    """An option that a newer criu may have takes its value with it, and nothing else."""
    parsed = parse_words(words)
    assert (parsed.settings, parsed.operands) == (settings, operands)
    assert len(parsed.warnings) == 1
    assert parsed.warnings[0].endswith("ignoring")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-D"], "-D: needs a value"),
        (["--pidfile"], "--pidfile: needs a value"),
        (["--daemon=yes"], "--daemon: does not take a value ('yes')"),
        (["--log", "x"], "--log: is short for more than one option (--log-file, --log-pid)"),
    ],
)
def test_wrong_option_is_refused(words: list[str], message: str) -> None:
    """What criu would print its usage for says what is wrong with it."""
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        parse_words(words)


def test_table_names_each_option_once() -> None:
    """No two options share a long or a short name."""
    options = (*CRIU_OPTIONS, *OWN_OPTIONS)
    assert len(LONG) == len(options) + sum(option.negatable for option in options)
    assert len(SHORT) == sum(bool(option.short) for option in options)


@pytest.mark.criu
def test_table_has_what_criu_lists_in_its_help(criu: Path) -> None:
    """Every option of CRIU's help is in the table, with its short name."""
    text = ask(criu, "--help")
    found = [match for line in text.splitlines() if (match := HELP_LINE.match(line))]
    assert len(found) > 60
    assert [match["name"] for match in found if match["name"] not in LONG] == []
    short = {match["short"]: match["name"] for match in found if match["short"]}
    # The help writes -d beside both names of that boolean.
    short["d"] = "restore-detached"
    assert [letter for letter in short if SHORT[letter].name != short[letter]] == []


@pytest.mark.criu
def test_table_has_the_arity_that_criu_insists_on(criu: Path) -> None:
    """CRIU takes a value, and does without, where the table says so, and has the same twins."""
    arities = {name: arity_of(criu, f"--{name}") for name in LONG}
    known = {name: arity for name, arity in arities.items() if arity is not None}
    assert len(known) > 100
    assert known == {name: LONG[name][0].arity for name in known}


HELP_LINE = re.compile(r"^ {2,5}(?:-(?P<short>[a-zA-Z])[^|]*\|)?--(?P<name>[a-z][a-z-]+)")


def arity_of(criu: Path, option: str) -> Arity | None:
    """Return what CRIU lets follow *option*; None if this CRIU has no such option."""
    bare = ask(criu, "no-command", option)
    if "unrecognized option" in bare:
        return None
    if "requires an argument" in bare:
        return Arity.REQUIRED
    allowed = "doesn't allow an argument" not in ask(criu, "no-command", f"{option}=1")
    return Arity.OPTIONAL if allowed else Arity.NONE


def ask(criu: Path, *words: str) -> str:
    """Return all that CRIU prints to *words*."""
    done = subprocess.run(
        [criu, *words], capture_output=True, text=True, timeout=20, env={}, check=False
    )
    return done.stdout + done.stderr
