"""Torture the daemon, or its engine alone, for some rounds; stop at the first finding."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.sanitizers import RUNTIMES, Interpreter, build_sanitized
from tests.support.hugetlb import pool
from tests.torture.rounds import Result, Settings, compile_torture, run_round

# Of 2 MiB: what a process of 256 MiB needs with all its children.
NR_HUGE = 2048


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of the first round; each has one more (%(default)s)")
    add("--rounds", type=int, default=10, help="how many (%(default)s); 0: until --total")
    add("--total", type=float, default=3600, help="seconds for all rounds (%(default)s)")
    add("--seconds", type=float, default=1.5, help="of a round (%(default)s)")
    add("--threads", type=int, default=4, help="of a process, an arena each (%(default)s)")
    add("--size", type=int, default=256, help="MiB of a process (%(default)s)")
    add("--processes", type=int, help="restores at a time (1, or one for each worker)")
    add("--operations", default="", help="letters of operations.c (as many as apply)")
    add("--cold", action="store_true", help="begin with pages that are not in the page cache")
    add("--pace", default="", help="of the drop-in's drain, as of its --drain")
    add("--vary", action="store_true", help="other settings every round")
    add("--engine", action="store_true", help="the engine alone, and look at its books")
    add("--huge", action="store_true", help="memory of hugetlbfs, of the engine alone")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of it (%(default)s)")
    add("--kills", type=int, default=0, help="of the drop-in, in a round (%(default)s)")
    add("--sanitize", choices=RUNTIMES, help="build what serves with these sanitizers")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    return options


def settings_of(options: argparse.Namespace, seed: int) -> Settings:
    """Return what the round of *seed* is like."""
    engine_alone = options.engine or options.huge or (options.vary and seed % 4 == 3)
    nr_workers = options.workers if engine_alone else 0
    # So that each worker has something to do.
    nr_processes = options.processes or max(nr_workers, 1)
    settings = Settings(
        seconds=options.seconds,
        nr_threads=options.threads,
        size_mib=options.size,
        nr_processes=nr_processes,
        operations=options.operations,
        cold=options.cold,
        nr_workers=nr_workers,
        nr_kills=0 if nr_workers else options.kills,
        pace="" if nr_workers else options.pace,
        huge=options.huge,
    )
    if not options.vary:
        return settings
    return replace(
        settings,
        nr_threads=(2, 4, 8, 3, 12)[seed % 5],
        size_mib=(256, 64, 512)[seed % 3],
        nr_processes=max(nr_processes, (1, 1, 2, 3)[seed // 3 % 4]),
        cold=options.cold or seed % 7 == 0,
        # Slow enough that much is missing still when the round ends.  Of more than 64 MiB it would
        # be so much that children, who fault for all of it, take as long as only a hang may.
        pace=settings.pace or ("32M" if seed % 6 == 1 and not nr_workers else ""),
    )


def replay(options: argparse.Namespace, settings: Settings, seed: int) -> str:
    """Return the command that runs the round of *seed* alone."""
    words = [
        f"python -m tests.torture --seed {seed} --rounds 1 --seconds {settings.seconds}",
        f"--threads {settings.nr_threads} --size {settings.size_mib}",
        f"--processes {settings.nr_processes}",
    ]
    words += [f"--operations '{settings.operations}'"] if settings.operations else []
    words += ["--cold"] if settings.cold else []
    words += [f"--engine --workers {settings.nr_workers}"] if settings.nr_workers else []
    words += ["--huge"] if settings.huge else []
    words += [f"--pace {settings.pace}"] if settings.pace else []
    words += [f"--kills {settings.nr_kills}"] if settings.nr_kills else []
    words += [f"--sanitize {options.sanitize}"] if options.sanitize else []
    return " ".join(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rounds; return 1 if there was a finding."""
    options = parse(arguments)
    end = time.monotonic() + options.total
    results: list[Result] = []
    huge_pages = pool(NR_HUGE) if options.huge else contextlib.nullcontext()
    with huge_pages, tempfile.TemporaryDirectory(prefix="lazypagesd-torture-") as name:
        program = compile_torture(Path(name))
        interpreter = Interpreter()
        if options.sanitize:
            interpreter = build_sanitized(options.sanitize, Path(name, "sanitized"))
        seed = options.seed
        while time.monotonic() < end and (not options.rounds or len(results) < options.rounds):
            settings = settings_of(options, seed)
            results.append(run_round(program, Path(name, "round"), seed, settings, interpreter))
            print(results[-1], flush=True)
            if results[-1].finding:
                print(results[-1].finding, "again:", replay(options, settings, seed), sep="\n")
                break
            seed += 1
    print(
        f"{len(results)} rounds: {sum(r.nr_operations for r in results)} operations,"
        f" {sum(r.nr_forks for r in results)} forks,"
        f" {sum(r.nr_checked for r in results)} pages checked,"
        f" {sum(r.nr_faults for r in results)} faults,"
        f" {sum(r.nr_takeovers for r in results)} takeovers,"
        f" {sum(bool(r.finding) for r in results)} findings"
    )
    return 1 if results and results[-1].finding else 0


if __name__ == "__main__":
    sys.exit(main())
