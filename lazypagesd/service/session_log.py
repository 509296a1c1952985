"""What the log says of the sessions of one restore."""

from __future__ import annotations

import errno
import logging

from lazypagesd.engine.engine import RETRY_INTERVAL_S
from lazypagesd.engine.session import End, Session, Trouble
from lazypagesd.service.journal import MessageId

log = logging.getLogger(__name__)


class SessionLog:
    """A restore's observer, who logs."""

    def __init__(self, number: int) -> None:
        """Prepare to log of the restore of that number."""
        self._restore = number
        self._told: set[tuple[str, str | None, int | None]] = set()

    def session_ended(self, session: Session) -> None:
        """Log how, and what is lost."""
        fields = self._fields(session, MESSAGE_ID=MessageId.SESSION_ENDED)
        log.info("process %s: %s", session.name, session.end, extra=fields)
        if guessed := session.counters.orders_guessed:
            log.warning(
                "process %s: the order of %d events could not be known: pages that were moved then"
                " may be wrong; where that matters, restore it anew",
                session.name,
                guessed,
                extra=self._fields(session, MESSAGE_ID=MessageId.ORDER_GUESSED),
            )
        if session.end is End.ABANDONED:
            log_lost(session, session.counters.nr_missing, restore=self._restore)

    def session_in_trouble(self, session: Session, trouble: Trouble) -> None:
        """Log which page it is, where its bytes should be, and who waits."""
        if not trouble.waiting:
            # The drain meets every page of a broken file; one of them says it all.
            key = session.name, trouble.source, trouble.error.errno
            if key in self._told:
                return
            self._told.add(key)
        where = f"{trouble.source} at offset {trouble.offset}" if trouble.source else "the kernel"
        log.error(
            "process %s: page %#x %s: %s: %s; it is tried again every %d seconds",
            session.name,
            trouble.addr,
            "is waited for and cannot be filled" if trouble.waiting else "cannot be filled ahead",
            where,
            reason(trouble.error),
            RETRY_INTERVAL_S,
            extra=self._fields(session, MESSAGE_ID=MessageId.PAGE_UNAVAILABLE),
        )

    def fork_delayed(self, session: Session, error: Exception) -> None:
        """Log that a parent and its child wait."""
        reason = getattr(error, "strerror", None) or error
        log.error(
            "process %s: has forked, and waits with its child: %s",
            session.name,
            reason,
            extra=self._fields(session, MESSAGE_ID=MessageId.FORK_DELAYED),
        )

    def _fields(self, session: Session, **others: str) -> dict[str, object]:
        return {"RESTORE": self._restore, "SESSION": session.name, **others}


def log_lost(session: Session, nr_missing: int, *, restore: int) -> None:
    """Log that *nr_missing* pages of *session* will never be filled."""
    if nr_missing:
        log.error(
            "process %s: %d pages are lost: it reads zeros there from now on",
            session.name,
            nr_missing,
            extra={
                "RESTORE": restore,
                "SESSION": session.name,
                "MESSAGE_ID": MessageId.PAGES_LOST,
            },
        )


def reason(error: OSError) -> str:
    """Say what is wrong with a source, and the remedy where there is one."""
    if error.errno == errno.ENODATA:
        return "the file ends before it: put the whole file back in place"
    return error.strerror or str(error)
