"""Calls, and the methods that they lead to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lazypagesd import __version__
from lazypagesd.service.varlink import errors
from lazypagesd.service.varlink.interface import Interface

Caller = TypeVar("Caller")
Parameters = Mapping[str, object]
Reply = dict[str, object]
Handler = Callable[[Caller, Parameters], Awaitable[Reply]]
# Each reply, and whether more come.  One that is None is not sent: by it a stream that has no news
# for long finds out that nobody listens any more.
Piece = tuple[Reply | None, bool]
Stream = Callable[[Caller, Parameters], AsyncIterator[Piece]]

SERVICE_TEXT = """\
# What every service answers.
interface org.varlink.service

# Who it is, and which interfaces it has.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# An interface, as it is written.
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A call, as it came."""

    interface: str
    method: str
    parameters: Parameters
    more: bool
    oneway: bool

    @classmethod
    def of(cls, message: Mapping[str, object]) -> Call:
        """Return the call in *message*, or raise CallError."""
        name, parameters = message.get("method"), message.get("parameters")
        if not isinstance(name, str) or "." not in name:
            raise errors.invalid_parameter("method")
        if not isinstance(parameters, Mapping | None):
            raise errors.invalid_parameter("parameters")
        for flag in ("more", "oneway", "upgrade"):
            if not isinstance(message.get(flag), bool | None):
                raise errors.invalid_parameter(flag)
        interface, _, method = name.rpartition(".")
        more, oneway = bool(message.get("more")), bool(message.get("oneway"))
        return cls(interface, method, parameters or {}, more, oneway)


@dataclass(slots=True)
class Methods(Generic[Caller]):
    """What stands behind an interface.

    A call with "more" is answered by a stream, where there is one; where there is no handler
    beside it, "more" has to be asked for.
    """

    interface: Interface
    handlers: dict[str, Handler[Caller]] = field(default_factory=dict)
    streams: dict[str, Stream[Caller]] = field(default_factory=dict)


class Service(Generic[Caller]):
    """All interfaces of a daemon, for callers who are told apart."""

    def __init__(self, interfaces: Sequence[Methods[Caller]]) -> None:
        """Answer *interfaces*, and org.varlink.service."""
        own: Methods[Caller] = Methods(
            Interface(SERVICE_TEXT),
            {"GetInfo": self._get_info, "GetInterfaceDescription": self._get_description},
        )
        self._interfaces = {each.interface.name: each for each in (own, *interfaces)}

    def interface(self, name: str) -> Interface:
        """Return the interface of that name."""
        return self._find(name).interface

    async def answer(self, caller: Caller, call: Call) -> AsyncGenerator[Piece]:
        """Yield each reply to *call*, and whether more come; or raise CallError."""
        methods = self._find(call.interface)
        if call.method not in methods.interface.methods:
            raise errors.method_not_found(f"{call.interface}.{call.method}")
        methods.interface.check_call(call.method, call.parameters)
        stream, handler = methods.streams.get(call.method), methods.handlers.get(call.method)
        if stream is not None and (call.more or handler is None):
            if not call.more:
                raise errors.expected_more()
            async for reply, continues in stream(caller, call.parameters):
                yield reply, continues
        elif handler is not None:
            yield await handler(caller, call.parameters), False
        else:
            name = f"{call.interface}.{call.method}"
            raise errors.CallError(f"{errors.SERVICE}.MethodNotImplemented", method=name)

    def _find(self, name: str) -> Methods[Caller]:
        if name not in self._interfaces:
            raise errors.interface_not_found(name)
        return self._interfaces[name]

    async def _get_info(self, _caller: Caller, _parameters: Parameters) -> Reply:
        return {
            "vendor": "lazypages",
            "product": "lazypagesd",
            "version": __version__,
            "url": "",
            "interfaces": sorted(self._interfaces),
        }

    async def _get_description(self, _caller: Caller, parameters: Parameters) -> Reply:
        return {"description": self._find(str(parameters["interface"])).interface.text}
