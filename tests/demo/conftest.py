"""CRIU and the daemon's command are found as in tests/criu/."""

from __future__ import annotations

from tests.criu.conftest import beyond_criu as beyond_criu
from tests.criu.conftest import criu as criu
from tests.criu.conftest import lazy_pages_command as lazy_pages_command
