"""Why a process waits: Explain."""

from __future__ import annotations

from lazypagesd.engine.pace import LAZY
from lazypagesd.engine.restore import Restore
from lazypagesd.engine.session import Reason, Session, Waiting
from lazypagesd.engine.statistics import microseconds
from lazypagesd.service.manager.asking import Asking
from lazypagesd.service.manager.history import History, Names, fault_entry
from lazypagesd.service.manager.views import View, session_id, session_state, waiting_view
from lazypagesd.service.manager.world import Caller
from lazypagesd.service.session_log import reason
from lazypagesd.service.varlink.service import Parameters

# What was the matter lately.
NR_LAST = 10

Words = tuple[str, str | None]


class Explaining:
    """Answers for a world."""

    def __init__(self, asking: Asking, history: History) -> None:
        """Prepare to answer by what others know."""
        self._asking = asking
        self._history = history

    async def explain(self, caller: Caller, parameters: Parameters) -> View:
        """Explain()"""
        tid = parameters.get("tid")
        named = {name: each for name, each in parameters.items() if name != "tid"}
        restore, session = self._asking.find(caller, named)
        id = session_id(restore, session)
        waiting = session.waiting()
        last = await self._history.last_faults(session.id, NR_LAST)
        if tid is not None:
            last = [(worker, fault) for worker, fault in last if fault.tid == tid]
        because, advice = words_for(restore, session, waiting)
        names = Names({session.id: id})
        view: View = {
            "session": id,
            "state": session_state(session),
            "because": because,
            "waiting": [waiting_view(id, each) for each in waiting],
            "last": [fault_entry(fault, worker, names) for worker, fault in last],
        }
        optional = {"advice": advice, "nr_queued": session.nr_queued}
        view |= {name: value for name, value in optional.items() if value is not None}
        return {"explanations": [view]}


def words_for(restore: Restore, session: Session, waiting: list[Waiting]) -> Words:
    """Return why *session* waits, and what is to be done, in a sentence each; or that it does
    not."""
    if session.final is not None:
        return (
            f"its session has ended ({session.end}): nothing of it is served any more",
            None,
        )
    for kind, words in ((Reason.HELD, held), (Reason.COLD, cold), (Reason.RETRY, retried)):
        if found := [each for each in waiting if each.reason is kind]:
            return words(found)
    if session.is_forking:
        return (
            "it has forked, and waits with its child until the child has a session",
            "the daemon's log says why that takes long; limits and memory are what it may lack",
        )
    if queued := session.nr_queued:
        return queued_words(session, queued)
    return idle(restore, session)


def held(waiting: list[Waiting]) -> Words:
    """A page cannot be filled."""
    first = waiting[0]
    assert first.error is not None, "that is why it is held"
    where = f"{first.source} at offset {first.offset}" if first.source else "the kernel"
    return (
        f"page {first.addr:#x} cannot be filled: {where}: {reason(first.error)}" + others(waiting),
        "mend the file, then `lazypagesctl retry`; it is tried again every ten seconds anyway",
    )


def cold(waiting: list[Waiting]) -> Words:
    """Its bytes are on their way."""
    first = waiting[0]
    return (
        f"page {first.addr:#x} is being read from {first.source} at offset {first.offset},"
        f" which is not in the page cache{others(waiting)}",
        "look at the disk or network that the file is on (iostat, /proc/pressure/io)",
    )


def retried(waiting: list[Waiting]) -> Words:
    """The kernel refuses fills for the moment."""
    return (
        f"the kernel refuses to fill page {waiting[0].addr:#x} for now: the process is changing"
        f" its mappings all the time, or its memory limit is reached{others(waiting)}",
        "look for a thread that calls madvise, mremap or munmap in a loop, and at memory.max of"
        " its control group",
    )


def queued_words(session: Session, nr_queued: int) -> Words:
    """The kernel has faults that nobody has read."""
    worker = session.worker.statistics if session.worker else None
    busy = (
        f"; worker {worker.number} serves {worker.nr_sessions} sessions, its longest round took"
        f" {microseconds(worker.longest_turn_ns)} us"
        if worker
        else ""
    )
    return (
        f"{nr_queued} faults are on their way: the kernel has them, and they are not answered"
        f" yet{busy}",
        None,
    )


def idle(restore: Restore, session: Session) -> Words:
    """It does not wait for us."""
    missing = f"{session.state.nr_missing} of {session.state.nr_pages} pages are missing still"
    if not restore.released:
        how = ", and are filled when they are touched, until its restore tool has finished"
    elif restore.paused:
        how = ", and are filled when they are touched: the restore is paused"
    else:
        before = "and not before" if restore.pace == LAZY else "or before that"
        how = f", and are filled when they are touched, {before} (pace: {restore.pace})"
    return (
        f"it waits for nothing of ours: {missing}{how}",
        "if a thread hangs, it waits for something else: look at /proc/PID/task/TID/wchan",
    )


def others(waiting: list[Waiting]) -> str:
    """Say how many more there are."""
    return f", and {len(waiting) - 1} more" if len(waiting) > 1 else ""
