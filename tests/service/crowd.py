"""Restores of every kind, to be done side by side: each is told what to do next, step by step."""

from __future__ import annotations

import asyncio
import enum
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lazypagesd.proto import handoff_pb2 as pb
from tests.service.daemon import LONG_GRACE
from tests.service.restorer import Restorer, page_addr, page_bytes, write_checkpoint
from tests.service.serving import (
    FINISHED,
    PAGE_SIZE,
    RELEASE,
    Server,
    opening,
    regions_of,
    session,
)
from tests.support.image import Image, wrong_pages
from tests.support.victim import Family, Victim

BASE = 0x100000000000
NR_PAGES = 256
PID = 7


# Who waits for pages in each process, each beginning somewhere else.
NR_THREADS = 4


@dataclass(frozen=True, slots=True)
class Programs:
    """What processes run: a victim, confined if it may have no userfaultfd, or a restorer."""

    victim: Path
    confine: Path
    restorer: Path


class Crowd:
    """A daemon with room for *count* restores, and what they are made with; whoever is left of
    them ends with *stack*."""

    def __init__(self, directory: Path, programs: Programs, count: int, stack: ExitStack) -> None:
        self.directory = directory
        self.programs = programs
        self.stack = stack
        config = directory / "lazypagesd.toml"
        config.write_text(f"[limits]\nrestores = {count}\nconnections_per_user = {count}\n")
        self.server = Server(directory, "--config", str(config), times=LONG_GRACE)
        stack.callback(self.server.close)
        images = directory / "crowd"
        write_checkpoint(images, {PID: NR_PAGES}, set())
        self.images_fd = os.open(images, os.O_RDONLY)
        stack.callback(os.close, self.images_fd)

    def work_directory(self, number: int) -> Path:
        """Make a directory for one member."""
        path = self.directory / f"work-{number}"
        path.mkdir()
        return path


class Member(ABC):
    """One restore, which has been handed over when this has been made, and is not finished.

    *can_fork* says whether fork() may be called; *dies_whole* whether the end of its process is
    that of its restore tool.
    """

    can_fork = False
    dies_whole = False

    @abstractmethod
    def begin_reading(self) -> None:
        """Let its process look at every page, while other things are done."""

    @abstractmethod
    def check(self) -> None:
        """See that every byte which that has brought, by fork() as well, is right."""

    @abstractmethod
    def finish(self) -> None:
        """Say that it has finished."""

    @abstractmethod
    def wait(self) -> None:
        """Return when its process needs nobody any more."""

    @abstractmethod
    def leave(self) -> None:
        """Close the connection."""

    @abstractmethod
    def kill(self) -> None:
        """Kill its process."""

    def fork(self) -> None:
        """Let the process fork, and its child look at every page."""
        raise NotImplementedError


class Native(Member):
    """A victim that a client of the native protocol hands over."""

    can_fork = True
    addr = BASE

    def __init__(self, crowd: Crowd, number: int) -> None:
        family = Family(
            crowd.programs.victim, crowd.work_directory(number), prefix=self._prefix(crowd)
        )
        victim = crowd.stack.enter_context(family).start()
        self._victims: list[Victim] = [victim]
        self._open(victim)
        self._client = crowd.server.client()
        fds = victim.hand_over(), os.pidfd_open(victim.pid)
        try:
            self._hand_over(crowd, *fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _prefix(self, crowd: Crowd) -> Sequence[str | Path]:
        return ()

    def _open(self, victim: Victim) -> None:
        victim.open()
        victim.call("mmap", self.addr, NR_PAGES * PAGE_SIZE)
        victim.call("register", self.addr, NR_PAGES * PAGE_SIZE)

    @abstractmethod
    def _hand_over(self, crowd: Crowd, fd: int, pidfd: int) -> None: ...

    @abstractmethod
    def _expected(self) -> bytes: ...

    def begin_reading(self) -> None:
        self._victims[-1].begin_reading(
            self.addr,
            NR_PAGES // NR_THREADS,
            nr_threads=NR_THREADS,
            step_pages=NR_PAGES // NR_THREADS,
        )

    def fork(self) -> None:
        self._victims.append(asyncio.run(self._victims[0].fork()))
        self.begin_reading()

    def check(self) -> None:
        for victim in self._victims:
            assert wrong_pages(asyncio.run(victim.end_reading()), self._expected()) == []

    def finish(self) -> None:
        self._client.do(FINISHED)

    def wait(self) -> None:
        assert self._client.do(RELEASE).state.ended

    def leave(self) -> None:
        self._client.close()

    def kill(self) -> None:
        for victim in self._victims:
            victim.kill()


class OfMemfd(Native):
    """Its bytes are in a memfd, in pieces that are out of order."""

    fields: ClassVar[Mapping[str, object]] = {}

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._file = os.memfd_create(f"pages of {number}")
        runs = [(BASE, 30), (BASE + 32 * PAGE_SIZE, 1), (BASE + 40 * PAGE_SIZE, 200)]
        try:
            self._image = Image(Path(f"/proc/self/fd/{self._file}"), runs)
            super().__init__(crowd, number)
        finally:
            os.close(self._file)

    def _hand_over(self, crowd: Crowd, fd: int, pidfd: int) -> None:
        first, *rest = regions_of(self._image)
        self._client.do(opening(name=type(self).__name__))
        self._client.do(
            session([first], pidfd=True, more=True, **self.fields), fd, pidfd, self._file
        )
        self._client.do(pb.Request(add_regions=pb.AddRegions(regions=rest)))

    def _expected(self) -> bytes:
        return self._image.bytes(BASE, NR_PAGES)


class OfChannel(OfMemfd):
    """It may have no userfaultfd, and has a channel that speaks v2."""

    fields: ClassVar[Mapping[str, object]] = {"channel": True}
    answer = "chserve"

    def _prefix(self, crowd: Crowd) -> Sequence[str | Path]:
        return (crowd.programs.confine,)

    def _open(self, victim: Victim) -> None:
        victim.call("chopen")

    def _hand_over(self, crowd: Crowd, fd: int, pidfd: int) -> None:
        [victim] = self._victims
        victim.begin_aside(self.answer)
        super()._hand_over(crowd, fd, pidfd)
        victim.call("rejoin")
        victim.call("mmap", self.addr, NR_PAGES * PAGE_SIZE)
        victim.call("chregister", self.addr, NR_PAGES * PAGE_SIZE)


class OfOldChannel(OfChannel):
    """It has a channel that speaks v1, which cannot tell of forks."""

    can_fork = False
    fields: ClassVar[Mapping[str, object]] = {
        "channel": True,
        "never_forks": True,
        "never_changes_mappings": True,
    }
    answer = "chserve1"


class OfImages(Native):
    """Its bytes are those of a process of CRIU's images."""

    addr = page_addr(PID, 0)

    def _hand_over(self, crowd: Crowd, fd: int, pidfd: int) -> None:
        self._client.do(opening(name="images", images=True), crowd.images_fd)
        self._client.do(session(image_pid=PID, pidfd=True), fd, pidfd)

    def _expected(self) -> bytes:
        return b"".join(page_bytes(PID, index) for index in range(NR_PAGES))


class ByCriu(Member):
    """A restorer that says what CRIU does, at a socket that a client has handed over."""

    dies_whole = True

    def __init__(self, crowd: Crowd, number: int) -> None:
        work = crowd.work_directory(number)
        client = crowd.server.client()
        client.do(opening(name="criu", images=True), crowd.images_fd)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.fspath(work / "lazy-pages.socket"))
            listener.listen()
            client.do(pb.Request(serve_criu=pb.ServeCriu()), listener.fileno())
        client.close()
        self._restorer = Restorer(crowd.programs.restorer, work)
        crowd.stack.callback(self._restorer.close)
        self._restorer.do("connect")
        self._restorer.take_over(PID, NR_PAGES)

    def begin_reading(self) -> None:
        for index in range(NR_PAGES):
            self._restorer.begin_read(PID, index)

    def check(self) -> None:
        seen = {self._restorer.page() for _ in range(NR_PAGES)}
        assert seen == {f"{PID} {index} right" for index in range(NR_PAGES)}

    def finish(self) -> None:
        self._restorer.do("word")

    def wait(self) -> None:
        self._restorer.do("end")

    def leave(self) -> None:
        self._restorer.do("close")

    def kill(self) -> None:
        self._restorer.kill()


# Members of a further kind need no more than to be named here.
KINDS: tuple[Callable[[Crowd, int], Member], ...] = (
    OfMemfd,
    OfImages,
    ByCriu,
    OfChannel,
    OfOldChannel,
)


class Fate(enum.Enum):
    """What becomes of a member."""

    WAITS = enum.auto()  # for its end, as its client is told of it
    FORKS = enum.auto()  # and parent and child read everything
    FINISHES = enum.auto()  # and its client leaves at once
    LEAVES = enum.auto()  # before it has finished, but its process lives on for a while
    DIES_EARLY = enum.auto()  # its process does, before it has finished
    DIES_LATE = enum.auto()  # or afterwards


class Life:
    """A member and its fate."""

    def __init__(self, member: Member, fate: Fate) -> None:
        self.member = member
        forks = fate is not Fate.FORKS or member.can_fork
        self.fate = fate if forks else Fate.WAITS

    @property
    def fails(self) -> bool:
        """Whether it is told of as an error."""
        return self.fate is Fate.LEAVES or (
            self.fate is Fate.DIES_EARLY and self.member.dies_whole
        )

    def begin(self) -> None:
        """Touch pages, and be disturbed while they come."""
        self.member.begin_reading()
        match self.fate:
            case Fate.FORKS:
                self.member.fork()
            case Fate.LEAVES:
                self.member.leave()
            case Fate.DIES_EARLY:
                self.member.kill()

    def finish(self) -> None:
        """Say so, if anybody is left who does."""
        if self.fate is Fate.LEAVES or self.fails:
            return
        self.member.finish()
        if self.fate is Fate.FINISHES:
            self.member.leave()
        if self.fate is Fate.DIES_LATE:
            self.member.kill()

    def end(self) -> None:
        """See that what was read is right, and be gone."""
        if self.fate not in (Fate.DIES_EARLY, Fate.DIES_LATE):
            self.member.check()
        match self.fate:
            case Fate.WAITS | Fate.FORKS:
                self.member.wait()
                self.member.leave()
            case Fate.LEAVES:
                self.member.kill()
            case Fate.DIES_EARLY | Fate.DIES_LATE if not self.member.dies_whole:
                self.member.leave()


def lives(crowd: Crowd, count: int) -> list[Life]:
    """Hand *count* members over, of each kind with each fate."""
    fates = list(Fate)
    return [
        Life(KINDS[i % len(KINDS)](crowd, i), fates[i // len(KINDS) % len(fates)])
        for i in range(count)
    ]
