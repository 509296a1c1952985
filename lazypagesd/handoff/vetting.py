"""Whether a userfaultfd can be served exactly, read from the descriptor itself."""

from __future__ import annotations

from lazypagesd.kernel import uffd

MAPPING_EVENTS = uffd.Feature.EVENT_REMAP | uffd.Feature.EVENT_REMOVE | uffd.Feature.EVENT_UNMAP
ALL_EVENTS = uffd.Feature.EVENT_FORK | MAPPING_EVENTS


def reasons_against(
    found: uffd.Descriptor, required: uffd.Feature = ALL_EVENTS, *, remedy: str
) -> list[str]:
    """Return every reason why what was *found* cannot be served; none if it can.

    *required* are the events that it must tell of, *remedy* what to do where it lacks one.
    """
    reasons = []
    if found.blocking:
        reasons.append("it is blocking: open it with O_NONBLOCK")
    if not found.negotiated:
        reasons.append("its API is not negotiated: do UFFDIO_API first")
    elif missing := required & ~found.features:
        reasons.append(f"it lacks {missing.name}: {remedy}")
    if uffd.Feature.SIGBUS in found.features:
        reasons.append("it has UFFD_FEATURE_SIGBUS, and so sends no messages: do without")
    return reasons
