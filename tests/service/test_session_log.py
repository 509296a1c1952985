"""What is logged of a session at its end."""

from __future__ import annotations

import os

import pytest

from lazypagesd.engine.session import End, Session
from lazypagesd.engine.state import State
from lazypagesd.service.journal import MessageId
from lazypagesd.service.session_log import SessionLog
from tests.native.states import Region, c_regions

X = 0x100000


@pytest.mark.parametrize("guessed", [0, 2])
def test_order_that_was_not_known_is_told(guessed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Pages may be wrong then, and whoever runs the process must hear of it."""
    state = State.create("7", c_regions([Region(X, 1, 0, 0)]), 1, 1, 1)
    state.pointer.counters.orders_guessed = guessed
    session = Session("7", os.open(os.devnull, os.O_RDONLY), state, [])
    session.end = End.DRAINED
    with caplog.at_level("WARNING"):
        SessionLog(3).session_ended(session)
    session.close()
    said = [(record.levelname, vars(record)["MESSAGE_ID"]) for record in caplog.records]
    assert said == [("WARNING", MessageId.ORDER_GUESSED)] * bool(guessed)
    assert not guessed or "order of 2 events" in caplog.text
