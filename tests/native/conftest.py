"""What the tests of native/ share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lazypagesd.engine.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Run a worker."""
    worker = Worker(0)
    worker.start()
    yield worker
    worker.stop()
