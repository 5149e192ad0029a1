"""Confines a process that decodes clips: it can read no file, write none, reach no network, start no program.

Decoders are C code that reads arbitrary files. A clip can be a playlist that names other files, or exploit a
fault in a decoder. So a worker gives up its rights before its first clip and only gets clips that its parent
has opened for it (`erv.media.handed`). What stays readable is the Python installation, because libraries load
some modules late.

Two mechanisms of Linux do this, neither of which needs root. Landlock (5.13 and later) covers files, TCP, and
signals to other processes, as far as the kernel's version of it goes. A seccomp filter allows only the system
calls that decoding needs (`erv.media.syscalls`): no sockets, no new processes, no reach for other processes
or the system. Where one is missing, the worker runs without it, and `confine` and
`erv doctor` say so.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from erv.media.syscalls import has_filter, program

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
_PACKAGES = ("site-packages", "dist-packages", "lib-dynload")


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
    if not has_filter(machine):
        return False
    steps = program(machine, os.getpid())
    code = ctypes.create_string_buffer(steps, len(steps))
    filter_ = struct.pack("HxxxxxxP", len(steps) // 8, ctypes.addressof(code))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_, 0, 0) == 0)
