"""CRIU's options, all of them, those of our own, and a parser that reads them as CRIU does.

Some facts about CRIU's command line:

- One table serves every sub-command, and each accepts the options of all others.  It is read by
  getopt_long(3), which lets options and other words stand in any order, takes ``--option=value``
  and ``--option value``, ``-Dvalue`` and ``-D value``, an optional value only where it is
  attached, and any prefix of a long name that fits one name alone.
- A boolean has a twin that begins with ``no-``.  ``--daemon`` and ``--restore-detached`` are one
  boolean.
- The table is that of CRIU 4.2.  What a later one adds is accepted with a warning here, not
  refused.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from lazypagesd.errors import ConfigError

COMMAND = "lazy-pages"


class Arity(enum.StrEnum):
    """What may follow an option's name."""

    NONE = enum.auto()
    OPTIONAL = enum.auto()
    REQUIRED = enum.auto()


@dataclass(frozen=True, slots=True)
class Option:
    """One line of the table; a *negatable* option has a ``no-`` twin."""

    name: str
    short: str = ""
    arity: Arity = Arity.NONE
    negatable: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """One option as it was given; *on* is false for the ``no-`` twin of *name*."""

    name: str
    value: str | None = None
    on: bool = True


@dataclass(slots=True)
class Parsed:
    """What a list of words says; operands are the words that are neither options nor values."""

    settings: list[Setting] = field(default_factory=list)
    operands: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _switch(name: str, short: str = "") -> Option:
    return Option(name, short, negatable=True)


def _value(name: str, short: str = "") -> Option:
    return Option(name, short, Arity.REQUIRED)


def _maybe(name: str, short: str = "") -> Option:
    return Option(name, short, Arity.OPTIONAL)


CRIU_OPTIONS = (
    _value("action-script"),
    _value("address"),
    Option("all"),
    _switch("allow-uprobes"),
    _switch("auto-dedup"),
    _value("cgroup-dump-controller"),
    _value("cgroup-props"),
    _value("cgroup-props-file"),
    _value("cgroup-root"),
    _value("cgroup-yard"),
    _value("close"),
    _value("config"),
    _maybe("cpu-cap"),
    _switch("daemon"),
    _switch("deprecated"),
    _switch("display-stats"),
    _value("empty-ns"),
    Option("enable-external-masters"),
    Option("enable-external-sharing"),
    _value("enable-fs"),
    _switch("evasive-devices"),
    Option("exec-cmd"),
    _switch("experimental"),
    _value("ext-mount-map", "M"),
    _maybe("ext-unix-sk", "x"),
    _value("external"),
    _switch("extra"),
    _value("feature"),
    _switch("file-locks", "l"),
    _value("file-validation"),
    _switch("force-irmap"),
    _value("freeze-cgroup"),
    _switch("ghost-fiemap"),
    _value("ghost-limit"),
    Option("help", "h"),
    _value("images-dir", "D"),
    _value("inherit-fd"),
    _value("irmap-scan-path"),
    _value("join-ns", "J"),
    Option("lazy-pages"),
    Option("leave-running", "R"),
    Option("leave-stopped", "s"),
    _value("libdir", "L"),
    _switch("link-remap"),
    _value("log-file", "o"),
    _switch("log-pid"),
    _value("lsm-mount-context"),
    _value("lsm-profile"),
    _maybe("manage-cgroups"),
    _switch("mntns-compat-mode"),
    Option("ms"),
    _value("network-lock"),
    Option("no-default-config"),
    _switch("page-server"),
    _value("pidfile"),
    _value("port"),
    _value("pre-dump-mode"),
    _value("prev-images-dir"),
    _value("ps-socket"),
    _switch("restore-detached", "d"),
    _switch("restore-sibling", "S"),
    _value("root", "r"),
    _switch("shell-job", "j"),
    _switch("skip-file-rwx-check"),
    _switch("skip-in-flight"),
    _value("skip-mnt"),
    _value("status-fd"),
    _switch("stream"),
    _switch("tcp-close"),
    _switch("tcp-established"),
    _value("timeout"),
    _switch("tls"),
    _value("tls-cacert"),
    _value("tls-cacrl"),
    _value("tls-cert"),
    _value("tls-key"),
    Option("tls-no-cn-verify"),
    _switch("track-mem"),
    _value("tree", "t"),
    _switch("unprivileged"),
    _maybe("verbosity", "v"),
    Option("version", "V"),
    _value("veth-pair"),
    _switch("weak-sysctls"),
    _value("work-dir", "W"),
)

# What criu has no name for.  None fits a shortened name of criu's that fitted one alone.
OWN_OPTIONS = (_value("drain"), Option("no-keeper"))

LONG = {option.name: (option, True) for option in (*CRIU_OPTIONS, *OWN_OPTIONS)} | {
    f"no-{option.name}": (option, False) for option in CRIU_OPTIONS if option.negatable
}
SHORT = {option.short: option for option in CRIU_OPTIONS if option.short}


def parse_words(words: Sequence[str]) -> Parsed:
    """Read *words*, a command line without its program; a wrong one raises ConfigError."""
    parsed = Parsed()
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            parsed.operands += reversed(rest)
            break
        if word.startswith("--"):
            _parse_long(word, rest, parsed)
        elif word.startswith("-") and word != "-":
            _parse_short(word[1:], rest, parsed)
        else:
            parsed.operands.append(word)
    return parsed


def _parse_long(word: str, rest: list[str], parsed: Parsed) -> None:
    written, equals, attached = word.partition("=")
    found = _find_long(written)
    if found is None:
        _skip_unknown(written, equals, rest, parsed)
        return
    option, on = found
    value = attached if equals else None
    if option.arity is Arity.NONE and value is not None:
        raise ConfigError(f"{written}: does not take a value ({attached!r})")
    if option.arity is Arity.REQUIRED and value is None:
        value = _next_value(written, rest)
    parsed.settings.append(Setting(option.name, value, on))


def _find_long(written: str) -> tuple[Option, bool] | None:
    name = written.removeprefix("--")
    if name in LONG:
        return LONG[name]
    candidates = sorted(full for full in LONG if full.startswith(name))
    if len(candidates) > 1:
        listed = ", ".join(f"--{full}" for full in candidates)
        raise ConfigError(f"{written}: is short for more than one option ({listed})")
    return LONG[candidates[0]] if candidates else None


def _skip_unknown(written: str, equals: str, rest: list[str], parsed: Parsed) -> None:
    # No word but the command is of use to us, so one that follows an option of which we do not
    # know whether it takes a value can only be its value.
    if not equals and rest and not rest[-1].startswith("-") and rest[-1] != COMMAND:
        rest.pop()
    parsed.warnings.append(f"{written}: no option that lazypagesd knows, ignoring")


def _parse_short(letters: str, rest: list[str], parsed: Parsed) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        option = SHORT.get(letter)
        if option is None:
            parsed.warnings.append(
                f"-{letter}{letters}: no option that lazypagesd knows, ignoring"
            )
            return
        if option.arity is Arity.NONE:
            parsed.settings.append(Setting(option.name))
            continue
        value = letters or None
        if option.arity is Arity.REQUIRED and value is None:
            value = _next_value(f"-{letter}", rest)
        parsed.settings.append(Setting(option.name, value))
        return


def _next_value(written: str, rest: list[str]) -> str:
    if not rest:
        raise ConfigError(f"{written}: needs a value")
    return rest.pop()
