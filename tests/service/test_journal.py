"""The journal as a log, as far as it can be seen without one: tests/systemd has the rest."""

from __future__ import annotations

import logging

import pytest

from lazypagesd.service.journal import JournalHandler, MessageId, handler_of


def test_stderr_that_is_no_journal_is_left_alone() -> None:
    """Without JOURNAL_STREAM, or with one that is not stderr, which somebody has redirected, there
    is no handler."""
    assert handler_of({}) is None
    assert handler_of({"JOURNAL_STREAM": "1:2"}) is None
    assert handler_of({"JOURNAL_STREAM": ""}) is None


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, "3"),
        (logging.ERROR, "3"),
        (logging.WARNING, "4"),
        (logging.INFO, "6"),
        (logging.DEBUG, "7"),
    ],
)
def test_levels_are_priorities(level: int, priority: str) -> None:
    """Each level of ours is one of the journal's."""
    sent: dict[str, object] = {}
    handler = JournalHandler(lambda message, **fields: sent.update(fields, MESSAGE=message))
    handler.emit(logging.LogRecord("lazypagesd.x", level, "x.py", 7, "%s s", ("5",), None, "f"))
    expected = {"MESSAGE": "5 s", "PRIORITY": priority, "CODE_FUNC": "f", "CODE_LINE": 7}
    assert expected.items() <= sent.items()
    assert "RESTORE" not in sent


def test_message_ids_differ() -> None:
    """An id is of one event alone, and 128 bits in hexadecimal digits."""
    assert len({str(each) for each in MessageId}) == len(list(MessageId))
    assert {len(bytes.fromhex(each)) for each in MessageId} == {16}
