"""Packets of the native hand-off: what a request says, and what a refusal may."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from lazypagesd.engine.pace import EAGER, LAZY, MAX_RATE, Pace
from lazypagesd.errors import HandoffError
from lazypagesd.proto import handoff_pb2 as pb

VERSION = 1
PACKET_MAX = 1 << 16
FDS_MAX = 16
# An answer is a packet as well: there may be a reason for each of thousands of regions.
REASONS_MAX = 32
REASON_MAX = 300  # characters, which become six bytes each at worst


class Refused(HandoffError):
    """A request that is not carried out; *reasons* are what the client is told."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(shorten(reasons))
        super().__init__(f"hand-off: refused: {'; '.join(self.reasons)}")


def decode(data: bytes) -> pb.Request:
    """Return the request that a packet is; Refused if it is none, or says what we do not know."""
    if len(data) > PACKET_MAX:
        raise Refused([f"the packet is too long: send at most {PACKET_MAX} bytes"])
    try:
        request = pb.Request.FromString(data)
    except DecodeError:
        raise Refused([f"the packet is no Request ({data[:16].hex()})"]) from None
    size = request.ByteSize()
    request.DiscardUnknownFields()
    if request.ByteSize() != size or request.WhichOneof("kind") is None:
        raise Refused([f"the request has fields that are not known: speak version {VERSION}"])
    return request


def reasons_against_pace(pace: pb.Pace) -> list[str]:
    """Return why *pace* is none."""
    if pace.kind not in pb.Pace.Kind.values():
        return [f"pace: kind {pace.kind} is not known: speak version {VERSION}"]
    least, most = (1, MAX_RATE) if pace.kind == pb.Pace.PACED else (0, 0)
    if not least <= pace.rate <= most:
        kind = pb.Pace.Kind.Name(pace.kind)
        return [f"pace: {kind} has a rate from {least} to {most}, not {pace.rate}"]
    return []


def pace_of(pace: pb.Pace) -> Pace:
    """Return *pace* as the engine has it; Refused if it is none."""
    if reasons := reasons_against_pace(pace):
        raise Refused(reasons)
    ends = {pb.Pace.EAGER: EAGER, pb.Pace.LAZY: LAZY}
    return ends.get(pace.kind) or Pace(pace.rate)


def shorten(reasons: Sequence[str]) -> list[str]:
    """Return as much of *reasons* as fits an answer, in characters that fit it too."""
    more = len(reasons) - REASONS_MAX
    kept = [*reasons[:REASONS_MAX], *([f"and {more} more"] if more > 0 else [])]
    return [reason[:REASON_MAX].encode(errors="backslashreplace").decode() for reason in kept]
