"""The demo's steps, one after the other, and what is said about each."""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lazypagesd.demo import filling, victim
from lazypagesd.demo.checkpoints import Checkpoints, Place
from lazypagesd.demo.daemon import Daemon
from lazypagesd.demo.trouble import Trouble
from lazypagesd.demo.victim import PAGE_SIZE, Answer, Verdict, Victim

_MIB = 1 << 20
_NR_SAMPLES = 1000


@dataclass(slots=True)
class Findings:
    """What the summary is made of; times are from the beginning of the restore."""

    first_answer_s: float = 0.0
    samples: list[Answer] = field(default_factory=list)
    verdict: Verdict = field(default_factory=lambda: Verdict(0, 0))
    filled_s: float = 0.0
    exit_code: int = 0

    def is_right(self) -> bool:
        """Say whether nothing at all was lost."""
        pages_right = self.verdict.nr_pages > 0 and self.verdict.nr_wrong == 0
        return pages_right and self.exit_code == 0 and all(one.is_right for one in self.samples)


class Story:
    """One run of the demo."""

    def __init__(
        self, console: Console, checkpoints: Checkpoints, place: Place, command: list[str]
    ) -> None:
        self._console = console
        self._checkpoints = checkpoints
        self._place = place
        self._command = command
        self._step = 0

    def tell(self, victim: Victim) -> bool:
        """Take *victim* through it all; say whether every page came back right."""
        restored = victim
        try:
            page = victim.nr_pages // 2
            self._introduce(victim, page)
            self._checkpoint(victim)
            with Daemon(self._command, self._place) as daemon:
                program = " ".join([Path(self._command[0]).name, *self._command[1:]])
                self._say("Daemon", f"[bold]{program}[/] waits, images in hand.")
                began_s = time.monotonic()
                restored = self._restore(victim, began_s)
                findings = self._use(restored, daemon, page, began_s)
                table = daemon.last_words() if findings.exit_code else daemon.statistics()
        finally:
            restored.kill()
        self._show_statistics(table)
        self._sum_up(findings, table)
        return findings.is_right()

    def _introduce(self, victim: Victim, page: int) -> None:
        with victim.connect() as connection:
            answer = connection.get(page)
        size = _mib(victim.nr_pages * PAGE_SIZE)
        self._say("Start", f"Process {victim.pid} has {size} of memory and answers questions:")
        self._add(f"page {page} holds {answer.word}, says its answer number {answer.number}.")

    def _checkpoint(self, victim: Victim) -> None:
        began_s = time.monotonic()
        self._checkpoints.checkpoint(victim, self._place)
        took = _ms(time.monotonic() - began_s)
        size = _mib(self._place.size())
        name = self._checkpoints.name
        self._say("Checkpoint", f"{name} wrote it to disk, {size} in {took}, and ended it.")
        if victim.is_alive():
            raise Trouble(f"process {victim.pid} is still alive after its checkpoint")
        try:
            victim.connect()
        except ConnectionRefusedError as refusal:
            self._say("Gone", f"No process {victim.pid}; asking it says: {refusal.strerror}.")
            victim.socket.unlink()
        else:
            raise Trouble(f"something still answers at {victim.socket}")

    def _restore(self, victim: Victim, began_s: float) -> Victim:
        restored = self._checkpoints.restore(victim, self._place)
        took = _ms(time.monotonic() - began_s)
        size = _mib(restored.resident_bytes())
        self._say("Restore", f"Process {restored.pid} runs after {took}, with {size} there.")
        return restored

    def _use(self, victim: Victim, daemon: Daemon, page: int, began_s: float) -> Findings:
        findings = Findings()
        returned_s = time.monotonic()
        with victim.connect() as connection:
            answer = connection.get(page)
            findings.first_answer_s = time.monotonic() - began_s
            findings.samples.append(answer)
            since = _ms(time.monotonic() - returned_s)
            self._say(
                "First answer",
                f"After {_ms(findings.first_answer_s)}, {since} from when it ran:",
            )
            self._add(f"page {page} holds {answer.word}, says its answer number {answer.number}.")

            def ask() -> None:
                for page in random.choices(range(victim.nr_pages), k=_NR_SAMPLES):
                    findings.samples.append(connection.get(page))
                findings.verdict = connection.verify()

            self._say("Filling", f"Asked for {_NR_SAMPLES} pages at random, then for all, while")
            self._add("the daemon brings the rest:")
            filling.watch(self._console, victim, daemon, ask)
        findings.exit_code = daemon.exit_code()
        findings.filled_s = (daemon.ended_s() or time.monotonic()) - began_s
        what = "The daemon gave up" if findings.exit_code else "All is there, the daemon has ended"
        self._say("Done", f"{what} after {_ms(findings.filled_s)}.")
        return findings

    def _show_statistics(self, table: list[str]) -> None:
        if table:
            self._console.print("\n[bold]What the daemon says of it[/]")
            for line in table:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _sum_up(self, findings: Findings, statistics_lines: list[str]) -> None:
        verdict = findings.verdict
        latencies = [one.latency_ns / 1000 for one in findings.samples]
        table = Table.grid(padding=(0, 3))
        table.add_row("first answer after", _ms(findings.first_answer_s))
        median, slowest = statistics.median(latencies), max(latencies)
        table.add_row("reading a page took", f"{median:.1f} µs (median), {slowest:.0f} µs (worst)")
        if statistics_lines and not findings.exit_code:
            table.add_row("faults", statistics_lines[-1].partition(";")[0])
        table.add_row("last page in after", _ms(findings.filled_s))
        right = verdict.nr_pages - verdict.nr_wrong
        colour = "green" if findings.is_right() else "bold red"
        table.add_row("pages as they were", f"[{colour}]{right} of {verdict.nr_pages}[/]")
        if findings.exit_code != 0:
            table.add_row("the daemon", f"[bold red]ended with {findings.exit_code}[/]")
        self._console.print()
        self._console.print(table)

    def _say(self, title: str, text: str) -> None:
        self._step += 1
        self._console.print(f"[bold cyan]{self._step}  {title:13}[/]{text}", soft_wrap=True)

    def _add(self, text: str) -> None:
        self._console.print(f"{'':16}{text}", soft_wrap=True)


def start_victim(place: Place, nr_pages: int) -> Victim:
    """Build and start the process that the story is about."""
    return victim.start(victim.build(place.work), place.work, nr_pages)


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f} MiB" if size >= _MIB else f"{size >> 10} KiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
