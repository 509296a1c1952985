"""Sources that are slow, broken or short, for tests of whatever reads sources.

Some facts that they rest on. pread() of /proc/self/mem at an address reads the memory there, from
any thread; where that is a mapping past the end of its file, it fails with EIO. (Where it is
absent and registered with a userfaultfd it fails as well, rather than wait.) A read of a file on
FUSE waits for as long as its server likes, and a FUSE file system may be one file, which can be
unmounted as soon as it has been opened. So these are descriptors that misbehave for real, under
the data plane's own pread().

Each owns its descriptors until close(), is a context manager, and lies in its file from *offset*
on: page n of its data is at offset + n * 4096.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import select
import stat
import struct
import tempfile
import threading
from collections.abc import Iterable

from lazypagesd.closing import Closing
from lazypagesd.sources.file import FileSource, Kind

MAP_FIXED = 0x10  # asm-generic/mman-common.h; not in Python's mmap
MNT_DETACH = 2  # linux/fs.h

# linux/fuse.h: what a request and its answer begin with (len, opcode or error, unique, ...), and
# what is answered to the requests that come.
FUSE_IN = struct.Struct("=IIQQIIII")
FUSE_OUT = struct.Struct("=IiQ")
FUSE_READ_IN = struct.Struct("=QQI")
FUSE_INIT_OUT = struct.Struct("=IIIIHHI40x")
FUSE_ATTR_OUT = struct.Struct("=Q8xQQQ36xIIIIIII")
FUSE_OPEN_OUT = struct.Struct("=QII")
FUSE_FORGET, FUSE_GETATTR, FUSE_OPEN, FUSE_READ = 2, 3, 14, 15
FUSE_INIT, FUSE_INTERRUPT, FUSE_BATCH_FORGET = 26, 36, 42
FUSE_VERSION = (7, 31)
FOPEN_DIRECT_IO = 1
FUSE_BUFFER = 1 << 17
FILE_MODE = stat.S_IFREG | 0o444


class TestingSource(Closing):
    """What the three have in common: *fd* is the source's, *offset* where its data begins."""

    __test__ = False  # pytest: this is no test

    def __init__(self, fd: int, offset: int, size: int, kind: Kind) -> None:
        """Take ownership of *fd*."""
        self.fd = fd
        self.offset = offset
        self._size = size
        self._kind = kind

    def as_source(self) -> FileSource:
        """Return what the engine takes; it borrows the descriptor."""
        name = type(self).__name__.lower()
        return FileSource(name, self.fd, self.offset + self._size, self._kind)

    def close(self) -> None:
        """Give up what it owns. Nobody may read it any more."""
        os.close(self.fd)


class Short(TestingSource):
    """A file that has become shorter than it was: of *data* only the first *size* bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        """Make a file in memory."""
        self._data = data
        super().__init__(memfd(data[:size]), 0, len(data), Kind.MEMORY)

    def extend(self) -> None:
        """Make it as long as it was."""
        os.pwrite(self.fd, self._data, 0)


class Failing(TestingSource):
    """A source that answers EIO for some of its pages, until mend()."""

    def __init__(self, data: bytes, bad_pages: Iterable[int]) -> None:
        """Hold *data*, whole pages of it, of which those numbered in *bad_pages* are broken."""
        self._data = data
        # Memory that is mapped from an empty file is a bus error to touch.
        self._broken = memfd(b"")
        self._memory = mmap.mmap(-1, len(data), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory[:] = data
        super().__init__(own_memory(), address_of(self._memory), len(data), Kind.BLOCKING)
        for page in bad_pages:
            start = page * mmap.PAGESIZE
            map_over(self.offset + start, mmap.PAGESIZE, self._broken, start)

    def mend(self) -> None:
        """Let every page be read from now on."""
        os.pwrite(self._broken, self._data, 0)

    def close(self) -> None:
        """Give up the memory and the descriptors."""
        super().close()
        self._memory.close()
        os.close(self._broken)


class Delayed(TestingSource):
    """A source of which every read waits, until release(). Needs root, and FUSE in the kernel."""

    def __init__(self, data: bytes) -> None:
        """Hold *data* back."""
        self._data = data
        self._held: list[bytes] = []
        self._read = threading.Event()
        self._released = threading.Event()
        self._closing = threading.Event()
        self._holds_attributes = False
        self._wake = os.eventfd(0)
        self._fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self._server = threading.Thread(target=self._serve, name="delayed", daemon=True)
        super().__init__(self._mount_and_open(), 0, len(data), Kind.BLOCKING)
        # Once the server has said that it knows no FLUSH, it is not asked again: a process that is
        # being started closes what it inherited, while its parent waits for it with the GIL.
        os.close(os.dup(self.fd))

    def wait_for_read(self, timeout_s: float) -> None:
        """Return as soon as a read waits; TimeoutError when none does."""
        if not self._read.wait(timeout_s):
            raise TimeoutError(f"nothing was read within {timeout_s} s")

    def hold_attributes(self) -> None:
        """Let fstat() wait as well."""
        self._holds_attributes = True

    def release(self) -> None:
        """Let all that waits go on, and what is to come."""
        self._released.set()
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Give up what it owns; a read that still waits fails."""
        super().close()  # which the server is asked about
        self._closing.set()
        os.eventfd_write(self._wake, 1)
        self._server.join()
        os.close(self._fuse)
        os.close(self._wake)

    # Leaves no mount behind: the open file is enough.
    def _mount_and_open(self) -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self._fuse},rootmode={FILE_MODE:o},user_id=0,group_id=0".encode()
        with tempfile.NamedTemporaryFile() as place:
            target = os.fsencode(place.name)
            if libc.mount(b"lazypagesd", target, b"fuse", ctypes.c_ulong(0), options) < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), place.name)
            try:
                self._server.start()
                return os.open(place.name, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                libc.umount2(target, MNT_DETACH)

    def _serve(self) -> None:
        while not self._closing.is_set():
            ready, _, _ = select.select([self._fuse, self._wake], [], [])
            if self._wake in ready:
                os.eventfd_read(self._wake)
            if self._fuse in ready:
                try:
                    self._take(os.read(self._fuse, FUSE_BUFFER))
                except OSError as error:
                    if error.errno not in (errno.ENODEV, errno.ECONNABORTED):
                        raise
                    return  # the file has been closed, and nobody reads it any more
            while self._held and self._released.is_set():
                self._answer(self._held.pop())

    def _take(self, request: bytes) -> None:
        opcode = FUSE_IN.unpack_from(request)[1]
        if opcode == FUSE_READ or (opcode == FUSE_GETATTR and self._holds_attributes):
            self._held.append(request)
            self._read.set()
        elif opcode not in (FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_INTERRUPT):
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        _, opcode, unique, *_ = FUSE_IN.unpack_from(request)
        code, answer = 0, b""
        if opcode == FUSE_INIT:
            answer = FUSE_INIT_OUT.pack(*FUSE_VERSION, 0, 0, 0, 0, 4096)
        elif opcode == FUSE_GETATTR:
            size = len(self._data)
            answer = FUSE_ATTR_OUT.pack(0, 1, size, size // 512, FILE_MODE, 1, 0, 0, 0, 4096, 0)
        elif opcode == FUSE_OPEN:
            answer = FUSE_OPEN_OUT.pack(0, FOPEN_DIRECT_IO, 0)
        elif opcode == FUSE_READ:
            _, offset, size = FUSE_READ_IN.unpack_from(request, FUSE_IN.size)
            answer = self._data[offset : offset + size]
        else:
            code = -errno.ENOSYS
        # The kernel forgets what it has asked as soon as the file is closed for good.
        with contextlib.suppress(FileNotFoundError):
            os.write(self._fuse, FUSE_OUT.pack(FUSE_OUT.size + len(answer), code, unique) + answer)


def memfd(data: bytes) -> int:
    """Return a new file in memory that holds *data*."""
    fd = os.memfd_create("lazypagesd-testing", os.MFD_CLOEXEC)
    os.pwrite(fd, data, 0)
    return fd


def own_memory() -> int:
    """Return a descriptor that reads this process's memory."""
    return os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)


def address_of(memory: mmap.mmap) -> int:
    """Return where *memory* is mapped."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def map_over(addr: int, size: int, fd: int, offset: int) -> None:
    """Map *size* bytes of *fd* at *addr*, in place of what is mapped there."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    arguments = (ctypes.c_void_p(addr), ctypes.c_size_t(size), mmap.PROT_READ)
    flags = mmap.MAP_SHARED | MAP_FIXED
    if function(*arguments, flags, fd, ctypes.c_long(offset)) != addr:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
