"""What a call is answered with that cannot be carried out."""

from __future__ import annotations

from collections.abc import Mapping

SERVICE = "org.varlink.service"


class CallError(Exception):
    """An error reply: *name* in full, and its parameters."""

    def __init__(self, name: str, **parameters: object) -> None:
        super().__init__(name)
        self.name = name
        self.parameters: Mapping[str, object] = parameters


def interface_not_found(interface: str) -> CallError:
    """There is no such interface."""
    return CallError(f"{SERVICE}.InterfaceNotFound", interface=interface)


def method_not_found(method: str) -> CallError:
    """The interface has no such method."""
    return CallError(f"{SERVICE}.MethodNotFound", method=method)


def invalid_parameter(parameter: str) -> CallError:
    """This one is not known, missing, of the wrong type, or of a value that cannot be."""
    return CallError(f"{SERVICE}.InvalidParameter", parameter=parameter)


def expected_more() -> CallError:
    """The method answers with a stream, which has to be asked for (as systemd has it)."""
    return CallError(f"{SERVICE}.ExpectedMore")
