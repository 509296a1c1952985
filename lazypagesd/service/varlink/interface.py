"""Interface files, and whether what goes over the wire is as they say.

They are parsed by the varlink package; what it parses them to has no types.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from varlink import scanner  # type: ignore[import-untyped]

from lazypagesd.service.varlink.errors import invalid_parameter

# Whole numbers on the wire are of 64 bits.
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


class Interface:
    """An interface, from its *text*."""

    def __init__(self, text: str) -> None:
        """Parse it; raises SyntaxError."""
        self.text = text
        self._parsed: Any = scanner.Interface(text)

    @classmethod
    def read(cls, path: Path) -> Interface:
        """Read the file at *path*."""
        return cls(path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """Its name, such as ``org.varlink.service``."""
        return str(self._parsed.name)

    @property
    def methods(self) -> list[str]:
        """The names of its methods."""
        return [
            name
            for name, member in self._parsed.members.items()
            if isinstance(member, scanner._Method)
        ]

    def check_call(self, method: str, parameters: Mapping[str, object]) -> None:
        """Raise InvalidParameter, with its name, if *parameters* are not those of *method*."""
        self._check_struct(self._parsed.members[method].in_type, parameters, "")

    def check_reply(self, method: str, parameters: Mapping[str, object]) -> None:
        """The same of a reply."""
        self._check_struct(self._parsed.members[method].out_type, parameters, "")

    def check_error(self, error: str, parameters: Mapping[str, object]) -> None:
        """The same of an error."""
        self._check(self._parsed.members[error].type, parameters, "")

    def _check_struct(self, type_: Any, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise invalid_parameter(path)
        for name in value.keys() - type_.fields.keys():
            raise invalid_parameter(f"{path}{name}")
        for name, field in type_.fields.items():
            self._check(field, value.get(name), f"{path}{name}")

    def _check(self, type_: Any, value: object, path: str) -> None:
        match type_:
            case scanner._Maybe():
                if value is not None:
                    self._check(type_.element_type, value, path)
            case scanner._CustomType():
                self._check(self._parsed.members[type_.name].type, value, path)
            case scanner._Struct():
                self._check_struct(type_, value, f"{path}." if path else "")
            case scanner._Array():
                if not isinstance(value, list):
                    raise invalid_parameter(path)
                for each in value:
                    self._check(type_.element_type, each, path)
            case scanner._Dict():
                if not isinstance(value, Mapping):
                    raise invalid_parameter(path)
                for each in value.values():
                    self._check(type_.element_type, each, path)
            case scanner._Object():
                if value is None:
                    raise invalid_parameter(path)
            case _:
                if not is_plain(type_, value):
                    raise invalid_parameter(path)


def is_plain(type_: Any, value: object) -> bool:
    """Whether *value* is of a type that is not made of others."""
    if isinstance(type_, scanner._Enum):
        return value in type_.fields
    # The package has a value of each in the type's place.
    if isinstance(type_, bool):
        return isinstance(value, bool)
    if isinstance(type_, int):
        return type(value) is int and INT_MIN <= value <= INT_MAX
    if isinstance(type_, float):
        return type(value) in (int, float)
    return isinstance(value, str)
