"""Confines a process that decodes clips: it can read no file, write none, reach no network, start no program.

Decoders are C code that reads arbitrary files. A clip can be a playlist that names other files, or exploit a
fault in a decoder. So a worker gives up its rights before its first clip and only gets clips that its parent
has opened for it (`erv.media.handed`). What stays readable is the Python installation, because libraries load
some modules late.

Two mechanisms of Linux do this, neither of which needs root. Landlock (5.13 and later) covers files, TCP, and
signals to other processes, as far as the kernel's version of it goes. A seccomp filter refuses sockets, new
programs and access to other processes. Where one is missing, the worker runs without it, and `confine` and
`erv doctor` say so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# System calls have these numbers on every architecture (they are newer than 2019).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Rights on files by version of Landlock, as bits from the lowest (linux/landlock.h).
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_RIGHTS = 0b11  # bind, connect; from version 4
_SCOPES = 0b11  # abstract sockets and signals of other processes; from version 6

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
# System calls to refuse, by architecture. Calls on existing descriptors still work: the pipe to the parent.
_REFUSED = {
    "x86_64": {
        "socket": 41,
        "connect": 42,
        "bind": 49,
        "socketpair": 53,
        "execve": 59,
        "ptrace": 101,
        "open_by_handle_at": 304,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "bpf": 321,
        "execveat": 322,
        "userfaultfd": 323,
        "io_uring_setup": 425,
        "pidfd_getfd": 438,
        # What Landlock lets through: owners, rights, times, attributes of any file; other processes.
        "chmod": 90,
        "fchmod": 91,
        "chown": 92,
        "fchown": 93,
        "lchown": 94,
        "utime": 132,
        "mknod": 133,
        "setpriority": 141,
        "sched_setparam": 142,
        "sched_setscheduler": 144,
        "setxattr": 188,
        "lsetxattr": 189,
        "fsetxattr": 190,
        "removexattr": 197,
        "lremovexattr": 198,
        "fremovexattr": 199,
        "sched_setaffinity": 203,
        "utimes": 235,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "inotify_init": 253,
        "mknodat": 259,
        "fchownat": 260,
        "futimesat": 261,
        "fchmodat": 268,
        "unshare": 272,
        "utimensat": 280,
        "inotify_init1": 294,
        "fanotify_init": 300,
        "setns": 308,
        "shmget": 29,
        "fchmodat2": 452,
    },
    "aarch64": {
        "ptrace": 117,
        "socket": 198,
        "socketpair": 199,
        "bind": 200,
        "connect": 203,
        "execve": 221,
        "open_by_handle_at": 265,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "bpf": 280,
        "execveat": 281,
        "userfaultfd": 282,
        "io_uring_setup": 425,
        "pidfd_getfd": 438,
        "setxattr": 5,
        "lsetxattr": 6,
        "fsetxattr": 7,
        "removexattr": 14,
        "lremovexattr": 15,
        "fremovexattr": 16,
        "inotify_init1": 26,
        "mknodat": 33,
        "fchmod": 52,
        "fchmodat": 53,
        "fchownat": 54,
        "fchown": 55,
        "utimensat": 88,
        "unshare": 97,
        "sched_setparam": 118,
        "sched_setscheduler": 119,
        "sched_setaffinity": 122,
        "setpriority": 140,
        "shmget": 194,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "fanotify_init": 262,
        "setns": 268,
        "fchmodat2": 452,
    },
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000  # calls of x86_64 with 32-bit pointers, numbered apart
_PACKAGES = ("site-packages", "dist-packages", "lib-dynload")
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
# Classic BPF: load a word, jump if equal, jump if at least, return.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06


@dataclass(frozen=True)
class Confinement:
    """What the kernel enforces.

    Attributes:
        landlock: version of Landlock; 0 without it.
        seccomp: whether a filter refuses system calls.
    """

    landlock: int
    seccomp: bool

    @property
    def files(self) -> bool:
        """Whether other files can't be read."""
        return self.landlock > 0

    @property
    def network(self) -> bool:
        """Whether no connection can be made."""
        return self.seccomp

    @property
    def gaps(self) -> str:
        """What a worker could still do, as the end of a sentence; empty if nothing."""
        open_doors = []
        if not self.files:
            open_doors.append("read your other files (no Landlock: Linux 5.13 or later has it)")
        if not self.network:
            open_doors.append("use the network (no seccomp filter for this system)")
        return " and ".join(open_doors)


def tried() -> Confinement:
    """What confinement gives on this machine, found out by a child process that then tries what it may not.

    Raises:
        OSError: no child process can be started.
    """
    import json
    import subprocess

    script = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
        " from erv.media.confinement import attempt; attempt()"
    )
    # Our own interpreter and our own code: nothing of the outside is in the arguments.
    child = subprocess.run(
        [sys.executable, "-c", script, json.dumps(sys.path)], capture_output=True, text=True, check=False
    )
    try:
        return Confinement(**json.loads(child.stdout))
    except (ValueError, TypeError):
        return Confinement(0, seccomp=False)


def attempt() -> None:
    """Confines this process, then tries to read a file and to open a socket; writes down what is enforced."""
    import json
    import socket

    given = confine()
    files, network = given.landlock, given.seccomp
    try:
        Path(sys.executable).open("rb").close()
        files = 0
    except PermissionError:
        pass
    try:
        socket.socket().close()
        network = False
    except PermissionError:
        pass
    sys.stdout.write(json.dumps({"landlock": files, "seccomp": network}))


def confine() -> Confinement:
    """Takes the rights described above from this process, for good; returns what the kernel enforces.

    Call it before any other thread starts: Landlock only applies to the calling thread and its children.
    """
    if not sys.platform.startswith("linux"):
        return Confinement(0, seccomp=False)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return Confinement(0, seccomp=False)
    return Confinement(_restrict_files(libc), _refuse_calls(libc))


def _restrict_files(libc: ctypes.CDLL) -> int:
    """Applies Landlock; returns its version, 0 if the kernel has none or refuses."""
    version: int = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < 1:
        return 0
    rights = (1 << _FILE_RIGHTS.get(version, max(_FILE_RIGHTS.values()))) - 1
    fields = [rights]
    if version >= 4:
        fields.append(_TCP_RIGHTS)
    if version >= 6:
        fields.append(_SCOPES)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules: int = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return 0
    try:
        for folder in _python_folders():
            _allow_reading(libc, rules, folder)
        return version if libc.syscall(_RESTRICT_SELF, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _allow_reading(libc: ctypes.CDLL, rules: int, folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # Python's path may name folders that don't exist
        return
    try:
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIR, descriptor)
        libc.syscall(_ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _python_folders() -> Iterable[Path]:
    """The standard library, installed packages, and our own; never a folder that a user works in."""
    yield Path(sysconfig.get_path("stdlib"))
    yield from (Path(entry) for entry in sys.path if Path(entry).name in _PACKAGES)
    yield Path(__file__).resolve().parents[1]


def _refuse_calls(libc: ctypes.CDLL) -> bool:
    """Applies the seccomp filter; returns whether the kernel took it."""
    machine = platform.machine()
    if machine not in _REFUSED:
        return False
    program = _program(machine)
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_, 0, 0) == 0)


def _program(machine: str) -> bytes:
    """The filter: EPERM for other architectures and for the refused calls, all others are allowed."""
    numbers = sorted(_REFUSED[machine].values())
    # Jumps count the instructions to skip. The last two are: allow, refuse.
    steps = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 0, len(numbers) + 3, _AUDIT_ARCH[machine]), (_LOAD, 0, 0, 0)]
    steps.append((_IF_AT_LEAST, len(numbers) + 1, 0, _X32_BIT))
    steps += [(_IF_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
