"""The guard page that the other tests rely on."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
from tests.fuzz.guarded import Guarded
guarded = Guarded.of(b"seven..")
data = guarded.as_array("uint8_t")
print(bytes(data[i] for i in range(7)), flush=True)
data[{at}]
"""


@pytest.mark.parametrize(("at", "code"), [(6, 0), (7, -signal.SIGSEGV)])
def test_byte_beyond_is_out_of_reach(repository: object, at: int, code: int) -> None:
    """The last byte can be read, and the one behind it kills."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(at=at)],
        cwd=str(repository),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("b'seven..'\n", code)
