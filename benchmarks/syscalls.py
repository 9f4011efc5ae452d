"""Trace or kill a process at its N-th system call that changes a file below a folder, whichever thread makes it.

`strace -e inject=…:signal=KILL:when=N` counts the calls of each thread apart, and LanceDB, DuckDB and Polars hand one
commit from thread to thread: most of its calls no N would reach. Here one counter runs over all threads and calls, and
SIGKILL falls before the call is made. Linux on x86-64 with PTRACE_GET_SYSCALL_INFO (5.3).
"""

import ctypes
import os
import platform
import signal
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEIZE, INTERRUPT, LISTEN, CONTINUE, SYSCALL, SYSCALL_INFO = 0x4206, 0x4207, 0x4208, 7, 24, 0x420E
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x100000  # TRACESYSGOOD, FORK, VFORK, CLONE, SECCOMP, EXITKILL
EVENT_SECCOMP, EVENT_STOP, SYSCALL_STOP = 7, 128, signal.SIGTRAP | 0x80
EXIT, SECCOMP = 2, 3
CREATES = os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_TRUNC
HERE = -100 & 0xFFFFFFFF  # AT_FDCWD

# By number: name, and where its paths are: "f<i>" a descriptor, "p<i>" a path, "a<i>" a path relative to folder i - 1.
CALLS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("write", ("f0",)), 18: ("pwrite64", ("f0",)), 20: ("writev", ("f0",)), 296: ("pwritev", ("f0",)),
    328: ("pwritev2", ("f0",)), 40: ("sendfile", ("f0",)), 326: ("copy_file_range", ("f2",)),
    2: ("open", ("p0",)), 85: ("creat", ("p0",)), 257: ("openat", ("a1",)),
    82: ("rename", ("p0", "p1")), 264: ("renameat", ("a1", "a3")), 316: ("renameat2", ("a1", "a3")),
    86: ("link", ("p0", "p1")), 265: ("linkat", ("a1", "a3")), 88: ("symlink", ("p1",)), 266: ("symlinkat", ("a2",)),
    87: ("unlink", ("p0",)), 263: ("unlinkat", ("a1",)), 84: ("rmdir", ("p0",)),
    83: ("mkdir", ("p0",)), 258: ("mkdirat", ("a1",)),
    76: ("truncate", ("p0",)), 77: ("ftruncate", ("f0",)), 285: ("fallocate", ("f0",)),
    74: ("fsync", ("f0",)), 75: ("fdatasync", ("f0",)), 277: ("sync_file_range", ("f0",)),
}  # fmt: skip
SYNCS = ("fsync", "fdatasync")
available = platform.machine() == "x86_64" and platform.system() == "Linux"


@dataclass
class Call:
    """A system call that changes a file: its name, the paths it is about, its result (None: killed before it)."""

    name: str
    paths: tuple[str, ...]
    flags: int = 0
    result: int | None = None


@dataclass
class Trace:
    """The calls in order, and how the process ended: its exit code, or minus the signal."""

    calls: list[Call] = field(default_factory=list)
    status: int | None = None


def announce() -> None:
    """To be called in the traced process, once it is: from now on all its threads stop at the calls of CALLS only.

    A filter of seccomp(2): without it the tracer would see every call, a thousand times as many. Not to be called
    in a process that nobody traces: the calls would fail.
    """
    load, equal, give = (0x20, 0, 0, 0), 0x15, 0x06  # BPF: the call's number; jump if equal; return
    program = [load]
    for number in CALLS:
        program += [(equal, 0, 1, number), (give, 0, 0, 0x7FF00000)]  # SECCOMP_RET_TRACE
    program.append((give, 0, 0, 0x7FFF0000))  # SECCOMP_RET_ALLOW
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in program))
    handle = ctypes.create_string_buffer(struct.pack("<H6xQ", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.syscall(317, 1, 1, handle):  # no new privileges; filter for all threads
        raise OSError(ctypes.get_errno(), "seccomp is not allowed here")


def trace(pid: int, root: Path, begin, kill_at: int = 0) -> Trace:
    """Follow every thread of a waiting process below `root`; `begin()` lets it go on.

    It then calls `announce` and does what is to be followed. With `kill_at` SIGKILL falls on it before its call of
    that number (from 1). Raises OSError where tracing is not allowed.
    """
    return _Tracer(pid, root, kill_at).run(begin)


class _Tracer:
    def __init__(self, pid: int, root: Path, kill_at: int) -> None:
        self.pid, self.root, self.kill_at = pid, f"{Path(root).absolute()}", kill_at
        self.trace = Trace()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._libc.ptrace.restype = ctypes.c_long
        self._pending: dict[int, Call] = {}

    def run(self, begin) -> Trace:
        seized: set[int] = set()
        while found := {int(path.name) for path in Path(f"/proc/{self.pid}/task").iterdir()} - seized:
            for thread in sorted(found):
                self._ask(SEIZE, thread, OPTIONS)
            seized |= found
        begin()
        while self.trace.status is None:
            thread, status = os.waitpid(-1, 0x40000000)  # __WALL
            if os.WIFSTOPPED(status):
                self._stopped(thread, status)
            elif thread == self.pid:
                self.trace.status = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return self.trace

    def _ask(self, request: int, thread: int, data: int = 0, address: int = 0) -> int:
        result = self._libc.ptrace(request, thread, address, data)
        if result < 0 and ctypes.get_errno() != 3:  # ESRCH: it has died meanwhile
            raise OSError(ctypes.get_errno(), f"ptrace request {request:#x} failed")
        return result

    def _stopped(self, thread: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        if event == EVENT_STOP and number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            self._ask(LISTEN, thread)
            return
        if event == EVENT_SECCOMP:
            self._ask(SYSCALL if self._entered(thread) else CONTINUE, thread)
            return
        if number == SYSCALL_STOP:
            self._left(thread)
        self._ask(CONTINUE, thread, 0 if event or number in (SYSCALL_STOP, signal.SIGTRAP) else number)

    def _info(self, thread: int, kind: int) -> Any:
        buffer = ctypes.create_string_buffer(96)
        read = self._ask(SYSCALL_INFO, thread, ctypes.addressof(buffer), len(buffer))
        return buffer if read > 0 and buffer.raw[0] == kind else None

    def _left(self, thread: int) -> None:
        """After a call: note its result."""
        call, buffer = self._pending.pop(thread, None), self._info(thread, EXIT)
        if call is not None and buffer is not None:
            call.result = struct.unpack_from("<q", buffer, 24)[0]

    def _entered(self, thread: int) -> bool:
        """Before a call: count it and kill if it is its turn; whether its result is wanted."""
        buffer = self._info(thread, SECCOMP)
        if buffer is None:
            return False
        number, *arguments = struct.unpack_from("<7Q", buffer, 24)
        call = self._call(thread, number, arguments)
        if call is None:
            return False
        self.trace.calls.append(call)
        self._pending[thread] = call
        if len(self.trace.calls) == self.kill_at:
            os.kill(self.pid, signal.SIGKILL)
        return True

    def _call(self, thread: int, number: int, arguments: list[int]) -> Call | None:
        name, places = CALLS[number]
        flags = arguments[{"openat": 2, "open": 1, "fallocate": 1}.get(name, 0)] & 0xFFFFFFFF
        if name in ("openat", "open") and not flags & CREATES:
            return None
        paths = tuple(self._path(thread, place, arguments) for place in places)
        return Call(name, paths, flags) if any(self._below(path) for path in paths) else None

    def _below(self, path: str) -> bool:
        return path == self.root or path.startswith(f"{self.root}/")

    def _path(self, thread: int, place: str, arguments: list[int]) -> str:
        kind, index = place[0], int(place[1])
        if kind == "f":
            return self._link(thread, f"fd/{arguments[index] & 0xFFFFFFFF}")
        path = self._text(thread, arguments[index])
        if path.startswith("/"):
            return path
        folder = arguments[index - 1] & 0xFFFFFFFF if kind == "a" else HERE
        return f"{self._link(thread, 'cwd' if folder == HERE else f'fd/{folder}')}/{path}"

    def _link(self, thread: int, name: str) -> str:
        try:
            return str(Path(f"/proc/{thread}/{name}").readlink()).removesuffix(" (deleted)")
        except OSError:  # a descriptor that is not open: the call will fail
            return ""

    def _text(self, thread: int, address: int) -> str:
        with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return os.fsdecode(memory.read(4096).split(b"\0")[0])


@dataclass(frozen=True)
class Unflushed:
    """What a power loss could have taken: at the acknowledgement, and whenever an older file was removed before."""

    syncs: int
    at_end: list[str]
    at_removal: list[str]


def unflushed(calls: list[Call], existed: set[str], root: Path) -> Unflushed:
    """Files and folders of `root` whose bytes or entries were not flushed after their last change.

    `existed`: every path below root before the first call. A file that was removed again needs no flush, SQLite's
    shared index neither: it is rebuilt from the log.
    """
    found = _Disk(existed)
    for call in calls:
        if call.result is not None and call.result >= 0:
            found.apply(call)
    top = f"{Path(root).absolute()}"
    at_end = found.files | {f"{folder}/" for folder in found.gained | found.lost}
    there = sorted(path for path in at_end if path.startswith(top) and os.path.lexists(path))
    return Unflushed(found.syncs, there, found.at_removal)


def _above(path: str) -> str:
    return path.rpartition("/")[0]


class _Disk:
    """What is not flushed after each call: files, folders with a new entry, folders that lost one."""

    def __init__(self, existed: set[str]) -> None:
        self.existed, self.here = frozenset(existed), set(existed)
        self.files: set[str] = set()
        self.gained: set[str] = set()
        self.lost: set[str] = set()
        self.at_removal: list[str] = []
        self.syncs = 0

    def apply(self, call: Call) -> None:
        """Take one call that succeeded."""
        first, last = call.paths[0], call.paths[-1]
        if call.name in SYNCS:
            self.syncs += 1
            for group in (self.files, self.gained, self.lost):
                group.discard(first)
        elif call.name in ("open", "openat", "creat", "mkdir", "mkdirat"):
            self._created(first)
            if call.flags & os.O_TRUNC:
                self._written(first)
        elif call.name.startswith("rename"):
            self._moved(first, last)
        elif call.name.startswith("link"):
            self._created(last)
            if first in self.files:
                self._written(last)
        elif call.name in ("unlink", "unlinkat", "rmdir"):
            self._removed(first)
        else:
            self._written(first)

    def _written(self, path: str) -> None:
        if not path.endswith("-shm"):
            self.files.add(path)

    def _created(self, path: str) -> None:
        if path not in self.here and not path.endswith("-shm"):
            self.here.add(path)
            self.gained.add(_above(path))

    def _moved(self, old: str, new: str) -> None:
        for group in (self.here, self.files, self.gained, self.lost):
            for path in [path for path in group if path == old or path.startswith(f"{old}/")]:
                group.remove(path)
                group.add(new + path[len(old) :])
        self.here.add(new)
        self.lost.add(_above(old))
        self.gained.add(_above(new))

    def _removed(self, path: str) -> None:
        if path in self.existed:
            self.at_removal += sorted((self.files | self.gained) - {*self.at_removal, path})
        for group in (self.here, self.files, self.gained, self.lost):
            group.discard(path)
        if not path.endswith("-shm"):
            self.lost.add(_above(path))
