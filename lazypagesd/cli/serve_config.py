"""The configuration file of ``lazypagesd serve``: TOML, of which every key has a default."""

from __future__ import annotations

import dataclasses
import grp
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from lazypagesd.errors import ConfigError
from lazypagesd.service.metrics.address import Address, parse_address
from lazypagesd.service.options import ServeConfig, ServeLimits

DEFAULT_PATH = Path("/etc/lazypagesd.toml")
NUMBER_MAX = 2**31 - 1
LIMITS = [field.name for field in dataclasses.fields(ServeLimits)]
MAY_BE_ZERO = {"poll_us"}


def read_config(path: Path | None) -> ServeConfig:
    """Return what the file *path* says; without one, what the default file says, if it is
    there."""
    name = str(path or DEFAULT_PATH)
    try:
        text = (path or DEFAULT_PATH).read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is None:
            return ServeConfig()
        raise
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: is no text ({error.reason})") from None
    return Reader(name, text).read()


@dataclass(frozen=True, slots=True)
class Reader:
    """A configuration's *text*, and its *name* for messages."""

    name: str
    text: str

    def read(self) -> ServeConfig:
        """Return what it says, or raise ConfigError."""
        try:
            top = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{self.name}: {error}") from None  # which names the line
        for key in top.keys() - {"group", "metrics", "limits"}:
            known = "group, metrics and [limits]"
            raise self._error(key, f"{key}: no such key or table; there are {known}")
        group = top.get("group")
        if not isinstance(group, str | None):
            raise self._error("group", f"group: is no text ({group!r})")
        if group is not None and not is_group(group):
            reason = f"group: {group!r}: no such group: make it, or name another"
            raise self._error("group", reason)
        limits = self._limits(top.get("limits", {}))
        return ServeConfig(group, limits, self._metrics(top.get("metrics")))

    def _metrics(self, text: object) -> Address | None:
        if text is None:
            return None
        try:
            return parse_address(text if isinstance(text, str) else repr(text))
        except ValueError as error:
            raise self._error("metrics", f"metrics: {error}") from None

    def _limits(self, table: object) -> ServeLimits:
        if not isinstance(table, dict):
            raise self._error("limits", "limits: is no table: write [limits]")
        for key, value in table.items():
            if key not in LIMITS:
                known = ", ".join(LIMITS)
                raise self._error(key, f"limits.{key}: no such key; there are {known}")
            least = 0 if key in MAY_BE_ZERO else 1
            if type(value) is not int or not least <= value <= NUMBER_MAX:
                raise self._error(key, f"limits.{key}: is no number from {least} on ({value!r})")
        return ServeLimits(**table)

    def _error(self, key: str, message: str) -> ConfigError:
        # The parser does not say where a key was; it is in one place, or the parser complains.
        for number, line in enumerate(self.text.splitlines(), 1):
            if re.match(rf"""[^#]*(?<![\w-]){re.escape(key)}["']?\s*[]=.]""", line):
                return ConfigError(f"{self.name}: line {number}: {message}")
        return ConfigError(f"{self.name}: {message}")


def is_group(name: str) -> bool:
    """Whether there is a group called *name*."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
