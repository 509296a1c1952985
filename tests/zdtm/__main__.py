"""Run CRIU's tests with criu's daemon and with ours, and compare."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.zdtm.compare import Comparison, passed
from tests.zdtm.suite import PASSED, Suite, userfaultfd_for_everyone

REPOSITORY = Path(__file__).parents[2]
BUILD = REPOSITORY / ".build"
FLAVORS = ("h", "ns", "uns")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.zdtm",
        description=__doc__,
        epilog="What comes after -- is for zdtm.py run: --iters 3, --pre 2.",
    )
    add = parser.add_argument
    add("--flavors", default=",".join(FLAVORS), help="of namespaces (%(default)s)")
    add("--tests", default=".*", help="a regular expression: zdtm/transition/ (%(default)s)")
    add("--parallel", type=int, default=os.cpu_count(), help="tests at a time (%(default)s)")
    add("--again", type=int, default=3, help="runs of what came out differently (%(default)s)")
    add("options", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def suites(options: argparse.Namespace) -> tuple[Suite, Suite]:
    """Return the suite with criu's daemon, and with ours; their logs are new."""
    criu = Path(os.environ.get("CRIU") or BUILD / "criu/criu").absolute()
    ours = Path(sys.executable).with_name("lazypagesd")
    directory = BUILD / "zdtm/criu/test"
    for name in ("criu", "lazypagesd"):
        (BUILD / f"zdtm/{name}.log").unlink(missing_ok=True)

    def suite(name: str, lazy_pages: Path) -> Suite:
        log = BUILD / f"zdtm/{name}.log"
        return Suite(directory, criu, lazy_pages, log, options.parallel, options.options)

    return suite("criu", criu), suite("lazypagesd", ours)


def run_flavor(flavor: str, criu: Suite, ours: Suite, options: argparse.Namespace) -> bool:
    """Run, compare and print; say whether with ours passes whatever passes with criu's."""
    result = Comparison(flavor, criu.run(flavor, options.tests), ours.run(flavor, options.tests))
    print(result, flush=True)
    if not passed(result.criu):
        print(f"{flavor}: nothing passed with criu, which compares nothing; see the logs")
        return False
    again = [less_often(name, flavor, criu, ours, options.again) for name in result.only_criu]
    return not any(again)


def less_often(name: str, flavor: str, criu: Suite, ours: Suite, times: int) -> bool:
    """Say whether the test passes with ours less often, if both are run again.

    Some tests are decided by chance; so is which daemon one has failed with, if it is run once.
    """
    pattern = f"{re.escape(name)}$"
    with_criu, with_ours = (
        sum(suite.run(flavor, pattern).get(name) == PASSED for _ in range(times))
        for suite in (criu, ours)
    )
    print(f"  {name} again: passed {with_criu} of {times} times with criu, {with_ours} with ours")
    return with_ours < max(with_criu, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite in each flavor; return 1 if anything passes only with criu."""
    options = parse(arguments)
    if os.geteuid():
        sys.exit("python -m tests.zdtm: needs root")
    criu, ours = suites(options)
    with userfaultfd_for_everyone():
        good = [run_flavor(flavor, criu, ours, options) for flavor in options.flavors.split(",")]
    print(f"logs: {criu.log} and {ours.log}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
