"""One round: images, the daemon or an engine alone, and processes that hand themselves over."""

from __future__ import annotations

import os
import random
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.images.writer import ImageEntry, ImageTask, anon_vma, write_images
from tests.sanitizers import Interpreter
from tests.service.daemon import KEEPER, kill_group, members
from tests.support.hugetlb import HUGE

SOURCES = Path(__file__).parent
DEFAULT = Interpreter()
PID = 77  # in the image, which knows nothing of the processes that run
# Made by a daemon that is about to kill itself.
CRASHED = "crashed"
SPARE_S = 60.0  # for start and end; a process finds out itself when it hangs
FAULTS = re.compile(r"([0-9]+) faults served")
# Of engine.py; and the last number of the last line of the drop-in's statistics.
GUESSED = re.compile(r"([0-9]+) orders guessed|guessed\n(?:[ \w.]+\n)*[ \w.]* ([0-9]+)\n")
# Of main.c's operations, those that hugetlbfs knows; and those that are told apart from what a
# daemon had not noted when it was killed: all but guards (docs/explanation/correctness.md).
OF_HUGE_PAGES = "numosdkalpcwrW|FKRVC"
BESIDE_KILLS = "numogsydfkalpPXcwrW|FKRVC"
RESULT = re.compile(r"([0-9]+) operations, ([0-9]+) forks, ([0-9]+) pages checked")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a round is like, apart from its seed; *operations* are main.c's.

    *nr_workers* are those of an engine alone; with 0 it is the drop-in, which has its own, and
    may be killed *nr_kills* times while the round lasts: its keeper starts another.  One that is
    built with crash points (native/crash.c) kills itself at *crash*, if there is one.  It drains
    at *pace*, of ``--drain``.  *huge* is for memory of hugetlbfs, which only an engine serves.
    """

    seconds: float = 1.5
    nr_threads: int = 4
    size_mib: int = 256
    nr_processes: int = 1
    operations: str = ""
    cold: bool = False
    nr_workers: int = 0
    nr_kills: int = 0
    crash: str = ""
    pace: str = ""
    huge: bool = False

    @property
    def unit(self) -> int:
        """How many pages are there together."""
        return HUGE if self.huge else 1

    @property
    def wanted_operations(self) -> str:
        """The letters of operations.c that main.c is told; empty: all of them."""
        if self.operations:
            return self.operations
        if self.huge:
            return OF_HUGE_PAGES
        return BESIDE_KILLS if self.nr_kills or self.crash else ""

    @property
    def sizes(self) -> list[str]:
        """What main.c is told of the size of a process."""
        return [str(self.nr_threads), str(self.size_mib), str(self.unit)]

    @property
    def nr_pages_each(self) -> int:
        """The pages of each arena."""
        nr_pages = self.size_mib * 2**20 // PAGE_SIZE // self.nr_threads
        return nr_pages - nr_pages % self.unit


@dataclass(frozen=True, slots=True)
class Result:
    """What a round did; *finding* is empty if all was as it must be.

    Where orders of events were guessed (*nr_guessed*), a wrong page may be what cannot be known:
    see docs/explanation/correctness.md.
    """

    seed: int
    nr_operations: int = 0
    nr_forks: int = 0
    nr_checked: int = 0
    nr_faults: int = 0
    nr_takeovers: int = 0
    nr_guessed: int = 0
    finding: str = ""

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.nr_operations} operations, {self.nr_forks} forks,"
            f" {self.nr_checked} pages checked, {self.nr_faults} faults,"
            f" {self.nr_takeovers} takeovers, {self.nr_guessed} orders guessed:"
            f" {'FINDING' if self.finding else 'right'}"
        )


def compile_torture(directory: Path) -> Path:
    """Compile the process, into *directory*."""
    program = directory / "torture"
    command = ["cc", "-std=gnu17", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    sources = sorted(SOURCES.glob("*.c"))
    subprocess.run([*command, "-o", program, *sources], check=True, timeout=60)
    return program


def run_round(
    program: Path,
    directory: Path,
    seed: int,
    settings: Settings,
    interpreter: Interpreter = DEFAULT,
) -> Result:
    """Run one round in *directory*, which is emptied first; the daemon, with *interpreter*."""
    shutil.rmtree(directory, ignore_errors=True)
    images, work = directory / "images", directory / "work"
    write_round_images(program, images, seed, settings)
    work.mkdir()
    interpreter = crashing(interpreter, directory, settings)
    command = interpreter.command("-m", *daemon_arguments(settings), "-D", images, "-W", work)
    daemon = start_daemon(command, interpreter, directory / "daemon.out")
    processes: list[subprocess.Popen[str]] = []
    try:
        for _ in range(settings.nr_processes):
            processes.append(start_process(program, work, seed, settings))
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # "connected"
        with killing(daemon, seed, settings):
            outputs = [communicate(process, settings) for process in release(processes)]
        code = end_of(daemon, settings)
    except subprocess.TimeoutExpired as error:
        pids = members(daemon.pid)
        outputs, code = ["\n".join([str(error), *map(stacks, pids)])], 0
    finally:
        for child in processes:
            child.kill()
            child.wait()
        kill_group(daemon.pid)
        daemon.wait()
    printed = (directory / "daemon.out").read_text()
    log = work / "daemon.log"
    nr_takeovers = log.read_text().count("taken over") if log.exists() else 0
    return replace(judge(seed, processes, outputs, code, printed), nr_takeovers=nr_takeovers)


def run_until(
    happened: Callable[[Result], bool],
    program: Path,
    directory: Path,
    seed: int,
    settings: Settings,
    interpreter: Interpreter = DEFAULT,
) -> Result:
    """Run a round, and again for longer if it has been over before that *happened*, as it may on a
    busy machine; not after a finding."""
    for times in (1, 3, 9):
        longer = replace(settings, seconds=times * settings.seconds)
        result = run_round(program, directory, seed, longer, interpreter)
        if result.finding or happened(result):
            break
    return result


def crashing(interpreter: Interpreter, directory: Path, settings: Settings) -> Interpreter:
    """Return *interpreter* with what lets the daemon die where the settings say."""
    if not settings.crash:
        return interpreter
    chosen = {
        "LAZYPAGESD_CRASH": settings.crash,
        "LAZYPAGESD_CRASH_ONCE": str(directory / CRASHED),
    }
    return replace(interpreter, environment={**interpreter.environment, **chosen})


@contextmanager
def killing(daemon: subprocess.Popen[str], seed: int, settings: Settings) -> Iterator[None]:
    """Kill the daemon, and whoever has come after it, at random moments of a round."""
    over, moments = threading.Event(), random.Random(seed)
    pause_s = 2 * settings.seconds / max(settings.nr_kills, 1)

    def kill() -> None:
        for _ in range(settings.nr_kills):
            if over.wait(moments.uniform(0, pause_s)):
                return
            for pid, name in members(daemon.pid).items():
                if name != KEEPER:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def end_of(daemon: subprocess.Popen[str], settings: Settings) -> int:
    """Wait for the end of the daemon, or of the last that has come after it; return an exit code
    if it is the first one's own."""
    if not (settings.nr_kills or settings.crash):
        return daemon.wait(SPARE_S)
    end = time.monotonic() + SPARE_S
    while members(daemon.pid):
        daemon.poll()
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired(daemon.args, SPARE_S)
        time.sleep(0.01)
    return 0


def write_round_images(program: Path, images: Path, seed: int, settings: Settings) -> None:
    """Write the checkpoint; the process itself says what its pages are."""
    images.mkdir(parents=True)
    pages = images / "pages-1.img"
    # Written aside, as write_images() writes pages, too: none.
    aside = images / "pages.part"
    listing = subprocess.run(
        [program, "image", aside, str(seed), *settings.sizes],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    ).stdout
    entries = []
    for line in listing.splitlines():
        addr, nr_pages = line.split()
        entries.append(ImageEntry(int(addr, 16), int(nr_pages)))
    spacing = 0x1000000000  # of arenas: record.c
    vmas = [
        anon_vma(0x100000000000 + i * spacing, settings.nr_pages_each)
        for i in range(settings.nr_threads)
    ]
    write_images(images, [ImageTask(pid=PID, vmas=tuple(vmas), entries=tuple(entries))])
    aside.rename(pages)
    if settings.cold:
        with pages.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def daemon_arguments(settings: Settings) -> list[str]:
    """Return the module that serves a round, and how."""
    if not settings.nr_workers:
        pace = ["--drain", settings.pace] if settings.pace else []
        return ["lazypagesd", "lazy-pages", "-v4", "-o", "daemon.log", *pace]
    numbers = {
        "--workers": settings.nr_workers,
        "--processes": settings.nr_processes,
        "--pid": PID,
    }
    huge = ["--huge"] if settings.huge else []
    words = [f"{name}={number}" for name, number in numbers.items()]
    return ["tests.torture.engine", *words, *huge]


def start_daemon(
    command: list[str | Path], interpreter: Interpreter, output: Path
) -> subprocess.Popen[str]:
    """Start what serves, and return when it listens."""
    read_fd, write_fd = os.pipe()
    try:
        with output.open("w") as file:
            daemon = subprocess.Popen(
                [*command, "--status-fd", str(write_fd)],
                cwd=interpreter.directory,
                env=interpreter.whole_environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=[write_fd],
                process_group=0,
                text=True,
            )
        os.close(write_fd)
        if not select.select([read_fd], [], [], SPARE_S)[0] or os.read(read_fd, 1) != b"\0":
            kill_group(daemon.pid)
            raise AssertionError("daemon not ready: " + output.read_text())
    finally:
        os.close(read_fd)
    return daemon


def start_process(
    program: Path, work: Path, seed: int, settings: Settings
) -> subprocess.Popen[str]:
    """Start a process, which waits for a byte once it has connected."""
    how = [str(settings.seconds), settings.wanted_operations]
    return subprocess.Popen(
        [program, "run", work, str(PID), str(seed), *settings.sizes, *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def release(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """Let all go on at once."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("!")
        process.stdin.flush()
    return processes


def communicate(process: subprocess.Popen[str], settings: Settings) -> str:
    """Return what the process printed until its end."""
    output, _ = process.communicate(timeout=settings.seconds + SPARE_S)
    return output


def stacks(pid: int) -> str:
    """Say where every thread of a process is in the kernel, as far as we may know."""
    lines = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for name in ("comm", "wchan", "syscall", "stack"):
            try:
                lines.append(f"{task}/{name}: {(task / name).read_text().strip()}")
            except OSError as error:
                lines.append(f"{task}/{name}: {error.strerror}")
    return "\n".join(lines)


def judge(
    seed: int,
    processes: list[subprocess.Popen[str]],
    outputs: list[str],
    daemon_code: int,
    daemon_output: str,
) -> Result:
    """Turn exit codes and what was printed into a result."""
    codes = [process.returncode for process in processes]
    done = [match for match in map(RESULT.search, outputs) if match]
    wrong = any(codes) or daemon_code or len(done) < len(processes)
    finding = f"exit codes {codes}, daemon {daemon_code}\n" + "\n".join(outputs) + daemon_output
    return Result(
        seed,
        nr_operations=sum(int(match[1]) for match in done),
        nr_forks=sum(int(match[2]) for match in done),
        nr_checked=sum(int(match[3]) for match in done),
        nr_faults=sum(map(int, FAULTS.findall(daemon_output))),
        nr_guessed=sum(int(one or other) for one, other in GUESSED.findall(daemon_output)),
        finding=finding if wrong else "",
    )
