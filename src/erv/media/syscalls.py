"""The filter of system calls of a confined process: a short list is allowed, everything else is refused.

The list is what CPython, numpy, Pillow and FFmpeg use to read open files, take memory, start threads and end,
as traced while every kind of clip was decoded, and its usual alternatives in other versions of the C library.
Calls that can also reach other processes are allowed for this process alone. A refused call fails with EPERM
("Operation not permitted"), which ends up in the reason of the clip. Calls that are newer than this list, and
`clone3`, whose arguments a filter can't see, fail with ENOSYS, so that the C library takes the older way.
"""

from __future__ import annotations

import errno
import struct

# Newest system call that was looked at; numbers are the same on every architecture from 424 on.
_NEWEST = 450
_CLONE3 = 435
# Frequent ones first: a filter is read from its beginning.
_ALLOWED = {
    "x86_64": {
        **{"read": 0, "write": 1, "fstat": 5, "lseek": 8, "futex": 202, "close": 3, "newfstatat": 262},
        **{"openat": 257, "rt_sigprocmask": 14, "brk": 12, "mmap": 9, "munmap": 11, "mprotect": 10},
        **{"madvise": 28, "mremap": 25, "clock_gettime": 228, "poll": 7, "recvmsg": 47, "recvfrom": 45},
        **{"getsockopt": 55, "getsockname": 51, "getpeername": 52, "memfd_create": 319, "ftruncate": 77},
        **{"pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "open": 2, "stat": 4, "lstat": 6},
        **{"statx": 332, "statfs": 137, "fstatfs": 138, "access": 21, "faccessat": 269, "faccessat2": 439},
        **{"readlink": 89, "readlinkat": 267, "getcwd": 79, "getdents64": 217, "dup": 32, "dup2": 33},
        **{"dup3": 292, "close_range": 436, "ppoll": 271, "select": 23, "pselect6": 270, "fadvise64": 221},
        **{"futex_waitv": 449, "set_robust_list": 273, "rseq": 334, "exit": 60, "exit_group": 231},
        **{"sched_yield": 24, "sched_getaffinity": 204, "getcpu": 309, "membarrier": 324, "sysinfo": 99},
        **{"rt_sigaction": 13, "rt_sigreturn": 15, "sigaltstack": 131, "restart_syscall": 219, "uname": 63},
        **{"clock_getres": 229, "clock_nanosleep": 230, "nanosleep": 35, "gettimeofday": 96, "time": 201},
        **{"times": 100, "getrusage": 98, "getpid": 39, "gettid": 186, "getppid": 110, "getuid": 102},
        **{"geteuid": 107, "getgid": 104, "getegid": 108, "getrandom": 318},
    },
    "aarch64": {
        **{"read": 63, "write": 64, "fstat": 80, "lseek": 62, "futex": 98, "close": 57, "newfstatat": 79},
        **{"openat": 56, "rt_sigprocmask": 135, "brk": 214, "mmap": 222, "munmap": 215, "mprotect": 226},
        **{"madvise": 233, "mremap": 216, "clock_gettime": 113, "ppoll": 73, "recvmsg": 212, "recvfrom": 207},
        **{"getsockopt": 209, "getsockname": 204, "getpeername": 205, "memfd_create": 279, "ftruncate": 46},
        **{"pread64": 67, "pwrite64": 68, "readv": 65, "writev": 66, "statx": 291, "statfs": 43},
        **{"fstatfs": 44, "faccessat": 48, "faccessat2": 439, "readlinkat": 78, "getcwd": 17},
        **{"getdents64": 61, "dup": 23, "dup3": 24, "close_range": 436, "pselect6": 72, "fadvise64": 223},
        **{"futex_waitv": 449, "set_robust_list": 99, "rseq": 293, "exit": 93, "exit_group": 94},
        **{"sched_yield": 124, "sched_getaffinity": 123, "getcpu": 168, "membarrier": 283, "sysinfo": 179},
        **{"rt_sigaction": 134, "rt_sigreturn": 139, "sigaltstack": 132, "restart_syscall": 128},
        **{"uname": 160, "clock_getres": 114, "clock_nanosleep": 115, "nanosleep": 101, "times": 153},
        **{"gettimeofday": 169, "getrusage": 165, "getpid": 172, "gettid": 178, "getppid": 173},
        **{"getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "getrandom": 278},
    },
}
# Calls that are allowed with some arguments.
_BY_ARGUMENT = {
    "x86_64": {
        "clone": 56,
        "kill": 62,
        "tgkill": 234,
        "prlimit64": 302,
        "ioctl": 16,
        "fcntl": 72,
        "prctl": 157,
    },
    "aarch64": {
        "clone": 220,
        "kill": 129,
        "tgkill": 131,
        "prlimit64": 261,
        "ioctl": 29,
        "fcntl": 25,
        "prctl": 167,
    },
}
# What a terminal looks like, how much can be read, and whether a descriptor blocks or is inherited; none that
# types into the terminal of the parent.
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS; not F_SETOWN and
# F_SETSIG, which send signals.
_FCNTLS = (0, 1, 2, 3, 4, 1030, 1033, 1034)
_PRCTLS = (15, 16, 0x53564D41)  # names of threads and of memory
_CLONE_THREAD = 0x00010000
_CLONE_OTHERS = 0x7E020000  # new namespaces

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000  # calls of x86_64 with 32-bit pointers, numbered apart
# Classic BPF: load a word, and with, jump if equal, jump if at least, return.
_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in `struct seccomp_data`; both machines are little-endian

_Step = tuple[int, int, int, int]
_ALLOW: _Step = (_RETURN, 0, 0, 0x7FFF0000)
_REFUSE: _Step = (_RETURN, 0, 0, 0x00050000 | errno.EPERM)
_UNKNOWN: _Step = (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)


def has_filter(machine: str) -> bool:
    """Whether there is a filter for this machine, as `platform.machine` names it."""
    return machine in _ALLOWED


def program(machine: str, pid: int) -> bytes:
    """The filter as a program of classic BPF.

    Args:
        machine: as `platform.machine` names it.
        pid: of the process to confine.
    """
    # Jumps count the instructions to skip.
    steps = [(_LOAD, 0, 0, _ARCH), (_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]), _REFUSE, (_LOAD, 0, 0, _NUMBER)]
    steps += [(_IF_AT_LEAST, 0, 1, _X32_BIT), _REFUSE]
    for number in _ALLOWED[machine].values():
        steps += [(_IF_EQUAL, 0, 1, number), _ALLOW]
    bodies = {
        "clone": _threads_alone(),
        "kill": _with(0, (pid,)),
        "tgkill": _with(0, (pid,)),
        "prlimit64": _own_limits(pid),
        "ioctl": _with(1, _IOCTLS),
        "fcntl": _with(1, _FCNTLS),
        "prctl": _with(0, _PRCTLS),
    }
    for name, number in _BY_ARGUMENT[machine].items():
        steps += [(_IF_EQUAL, 0, len(bodies[name]), number), *bodies[name]]
    steps += [(_IF_EQUAL, 0, 1, _CLONE3), _UNKNOWN, (_IF_AT_LEAST, 0, 1, _NEWEST + 1), _UNKNOWN, _REFUSE]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _argument(place: int, *, high: bool = False) -> _Step:
    """Loads the lower or higher half of an argument."""
    return _LOAD, 0, 0, _ARGUMENTS + 8 * place + 4 * high


def _with(place: int, values: tuple[int, ...]) -> list[_Step]:
    """Allows these values of an argument, which the kernel takes as an int."""
    steps = [_argument(place)]
    for value in values:
        steps += [(_IF_EQUAL, 0, 1, value), _ALLOW]
    return [*steps, _REFUSE]


def _threads_alone() -> list[_Step]:
    """Allows new threads of this process, no new processes."""
    flags = (_AND, 0, 0, _CLONE_THREAD | _CLONE_OTHERS)
    return [_argument(0), flags, (_IF_EQUAL, 0, 1, _CLONE_THREAD), _ALLOW, _REFUSE]


def _own_limits(pid: int) -> list[_Step]:
    """Allows reading this process's own limits: `prlimit64(0 or pid, which, NULL, where)`."""
    return [
        _argument(0),
        (_IF_EQUAL, 1, 0, 0),
        (_IF_EQUAL, 0, 5, pid),
        _argument(2),
        (_IF_EQUAL, 0, 3, 0),
        _argument(2, high=True),
        (_IF_EQUAL, 0, 1, 0),
        _ALLOW,
        _REFUSE,
    ]
