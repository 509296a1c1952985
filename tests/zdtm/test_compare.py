"""What is read from zdtm.py's output, and how it is compared."""

from __future__ import annotations

from tests.zdtm.compare import Comparison
from tests.zdtm.suite import UNFINISHED, read_verdicts

# Shortened, of: zdtm.py run --lazy-pages --keep-going -f h -a -p 2
OUTPUT = """\
uffd is supported
=== Run 1/475 ---------------- zdtm/static/apparmor
Skipping zdtm/static/apparmor (checkskip failed)
=== Run 7/475 ---------------- zdtm/static/bpf_hash
========================= Run zdtm/static/bpf_hash in h =========================
Run criu dump
################# Test zdtm/static/bpf_hash FAIL at CRIU dump ##################
========================== Run zdtm/static/maps00 in h ==========================
Run criu lazy-pages
========================= Test zdtm/static/maps00 PASS =========================
========================== Run zdtm/static/futex in h ==========================
Traceback (most recent call last):
##################################### FAIL #####################################
========================== Run zdtm/static/timers in h ==========================
 Test zdtm/static/timers FAIL at ['make', '--no-print-directory', '-C', 'zdtm/static', 'rtc.pid']
"""


def test_verdicts_are_read() -> None:
    """Each test that was begun has a verdict, and says where it failed; skipped ones have none."""
    assert read_verdicts(OUTPUT.splitlines(keepends=True)) == {
        "zdtm/static/bpf_hash": "FAIL at CRIU dump",
        "zdtm/static/maps00": "PASS",
        "zdtm/static/futex": UNFINISHED,
        # Where a heading is too long to be decorated it is not.
        "zdtm/static/timers": "FAIL at ['make', '--no-print-directory', '-C', 'zdtm/static',"
        " 'rtc.pid']",
    }


def test_what_passes_with_one_daemon_alone_is_named() -> None:
    """A test that fails, does not end, or is missing with one daemon is named."""
    comparison = Comparison(
        "h",
        criu={"a": "PASS", "b": "PASS", "c": "FAIL at result check", "d": "PASS"},
        ours={"a": "PASS", "b": UNFINISHED, "c": "PASS"},
    )
    assert comparison.both == ["a"]
    assert comparison.only_criu == ["b", "d"]
    assert comparison.only_ours == ["c"]
    assert str(comparison).splitlines() == [
        "h: 4 tests run, 1 passed with both, 2 only with criu, 1 only with lazypagesd",
        "  only with criu: b: no verdict",
        "  only with criu: d: not run",
        "  only with lazypagesd: c: FAIL at result check",
    ]
