"""What a media worker can still do: read its clip, and nothing else, as far as the kernel enforces it."""

import errno
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from erv.doctor.doctor import examine
from erv.media.confinement import Confinement, tried
from erv.media.workers import isolated
from tests.support.media import Task
from tests.support.starting import WAYS, starting

GIVEN = tried()


def read_other(task: Task) -> str:
    """The outcome of reading files, some of which no worker has any business with."""
    said = [task.files[0].read_bytes().decode()]
    other = Path(os.environ.get("PYTHON_TEST_OTHER", "/"))
    for attempt in (
        lambda: other.read_bytes(),
        lambda: Path("/proc/self/environ").read_bytes(),
        lambda: other.with_name("new").write_bytes(b"1"),
        lambda: list(Path("/").iterdir()),
    ):
        try:
            attempt()
            said.append("done")
        except PermissionError:
            said.append("refused")
    return " ".join(said)


def reach_out(task: Task) -> str:
    said = []
    for attempt in (
        lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_UNIX),
        lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    ):
        try:
            attempt()
            said.append("done")
        except PermissionError:
            said.append("refused")
        except OSError:
            said.append("done")
    return " ".join(said)


def secrets(task: Task) -> list[str]:
    return sorted(name for name in os.environ if "SECRET" in name or name.startswith(("ERV_", "AWS_")))


def only(function, files, way="alone", prepare=None):
    with starting(way, function, prepare=prepare) as start:
        (outcome,) = isolated(
            function, [Task(files)], workers=1, seconds=30, confined=True, prepare=prepare, start=start
        )
    assert outcome.failure is None
    return outcome.result


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Landlock is Linux's")
@pytest.mark.parametrize("way", WAYS)
def test_a_worker_reads_its_clip_alone(tmp_path, monkeypatch, way):
    other, clip = tmp_path / "other", tmp_path / "clip"
    other.write_text("secret")
    clip.write_text("clip")
    monkeypatch.setenv("PYTHON_TEST_OTHER", str(other))
    said = only(read_other, (clip,), way)
    assert said == "clip " + " ".join(["refused" if GIVEN.files else "done"] * 4)


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_has_no_network_and_starts_no_program(tmp_path, way):
    (tmp_path / "clip").write_text("clip")
    if not GIVEN.network:
        assert "network" in GIVEN.gaps
        return
    assert only(reach_out, (tmp_path / "clip",), way) == "refused refused refused refused"


def load_libraries() -> None:
    """As `erv.media.decode.load_decoders`; fails if that starts threads."""
    from erv.media.decode import load_decoders

    load_decoders()
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise RuntimeError("a library has started a thread, which Landlock does not bind")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Landlock is Linux's")
@pytest.mark.parametrize("way", WAYS)
def test_a_worker_has_a_single_thread_and_no_keys(tmp_path, monkeypatch, way):
    (tmp_path / "clip").write_text("clip")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("ERV_S3_SECRET_KEY", "x")
    assert only(secrets, (tmp_path / "clip",), way, prepare=load_libraries) == []


@pytest.mark.parametrize("way", WAYS)
def test_an_item_may_have_many_files(tmp_path, way):
    files = tuple(tmp_path / f"{number:03d}" for number in range(450))
    for file in files:
        file.write_text(file.name)
    assert only(joined, files, way) == "".join(file.name for file in files)


def joined(task: Task) -> str:
    return "".join(file.read_text() for file in task.files)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_larger_than_the_memory_of_an_item(tmp_path, way):
    with (tmp_path / "clip").open("wb") as file:
        file.truncate(60_000_000)
    task = Task((tmp_path / "clip",))
    with starting(way, secrets) as start:
        (outcome,) = isolated(
            secrets, [task], workers=1, seconds=30, memory_mb=50, confined=True, start=start
        )
    assert outcome.failure == "needs more than 50 MB"


def test_a_file_that_is_gone_is_an_error_of_the_run(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(isolated(joined, [Task((tmp_path / "gone",))], workers=1, seconds=30, confined=True))


def test_the_doctor_says_what_the_kernel_enforces(tmp_path):
    (finding,) = [finding for finding in examine(tmp_path) if finding.name == "media workers"]
    if GIVEN.gaps:
        assert finding.state == "warn"
        assert GIVEN.gaps in finding.detail
    else:
        assert finding.state == "ok"
        assert finding.detail.startswith("read their clip alone, no network (Landlock ")


def test_what_is_not_enforced_is_said():
    assert Confinement(0, seccomp=False).gaps == (
        "read your other files (no Landlock: Linux 5.13 or later has it)"
        " and use the network (no seccomp filter for this system)"
    )
    assert Confinement(1, seccomp=True).gaps == ""


@pytest.mark.skipif(not GIVEN.network, reason="no seccomp filter for this system")
def test_a_kernel_without_landlock_is_noticed():
    """A number that no system call has fails as Landlock does in an older kernel."""
    script = "import erv.media.confinement as c; c._CREATE_RULESET = 9999; c.attempt()"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == {"landlock": 0, "seccomp": True}


# Calls that reach other processes or the system, with arguments that change nothing if they are let through:
# invalid ones, no address, signal 0. `P` is the test's process. Numbers of x86_64 and aarch64.
REACH_OUT = {
    "prlimit64 of another": (302, 261, "P", 7, 0, 0),
    "prlimit64 to set": (302, 261, 0, 99, 1, 0),
    "setrlimit": (160, 164, 99, 0),
    "ioprio_set": (251, 30, 1, "P", 7 << 13),
    "sched_setattr": (314, 274, "P", 0, 0),
    "setpriority": (141, 140, 9, "P", 0),
    "move_pages": (279, 239, "P", 0, 0, 0, 0, 0),
    "kcmp": (312, 272, "P", "P", 99),
    "process_madvise": (440, 440, -1, 0, 0, 0, 0),
    "pidfd_open": (434, 434, "P", 1 << 30),
    "ptrace": (101, 117, 99, 0, 0, 0),
    "kill": (62, 129, "P", 0),
    "kill of all": (62, 129, -1, 99),
    "tkill": (200, 130, "P", 0),
    "tgkill": (234, 131, "P", "P", 0),
    "setpgid": (109, 154, 0, -1),
    "fcntl F_SETOWN": (72, 25, -1, 8, "P"),
    "fcntl F_SETSIG": (72, 25, -1, 10, 9),
    "ioctl TIOCSTI": (16, 29, -1, 0x5412, 0),
    "prctl PR_SET_PDEATHSIG": (157, 167, 1, 99, 0, 0, 0),
    "fork": (56, 220, 0x00020200, 0, 0, 0, 0),  # CLONE_NEWNS with CLONE_FS
    "namespace": (56, 220, 0x10010000, 0, 0, 0, 0),  # CLONE_NEWUSER with CLONE_THREAD
    "msgget": (68, 186, 0x5EED, 0),
    "semget": (64, 190, 0x5EED, 1, 0),
    "shmget": (29, 194, 0x5EED, 1, 0),
    "mq_open": (240, 180, 0, 0, 0, 0),
    "chroot": (161, 51, 0),
    "mount": (165, 40, 0, 0, 0, 0, 0),
    "umount2": (166, 39, 0, 0),
    "swapoff": (168, 225, 0),
    "sethostname": (170, 161, 0, 1),
    "setdomainname": (171, 162, 0, 1),
    "settimeofday": (164, 170, 1, 0),
    "clock_settime": (227, 112, 0, 0),
    "adjtimex": (159, 171, 0),
    "reboot": (169, 142, 0, 0, 0, 0),
    "delete_module": (176, 106, 0, 0),
    "perf_event_open": (298, 241, 0, 0, 0, 0, 0),
    "personality": (135, 92, 0xFFFFFFFF),
    "unlinkat": (263, 35, -1, 0, 0),
    "mkdirat": (258, 34, -1, 0, 0),
    "linkat": (265, 37, -1, 0, -1, 0, 0),
    "symlinkat": (266, 36, 0, -1, 0),
    "renameat2": (316, 276, -1, 0, -1, 0, 0),
    "truncate": (76, 45, 0, 0),
    "fchmod": (91, 52, -1, 0),
    "splice": (275, 76, -1, 0, -1, 0, 0, 0),
    "socket": (41, 198, 99, 0, 0),
    "io_uring_setup": (425, 425, 0, 0),
    "execve": (59, 221, 0, 0, 0),
}
TRY_OUT = """
import ctypes, json, os, signal, sys, threading, resource
import erv.media.confinement as c
user, calls = json.loads(sys.argv[1])
if user is not None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.prctl(38, 1, 0, 0, 0)
assert c._refuse_calls(libc)  # without Landlock, which refuses some of them too
found = {}
for name, (number, *arguments) in calls.items():
    ctypes.set_errno(0)
    result = libc.syscall(*(ctypes.c_long(value) for value in (number, *arguments)))
    found[name] = ctypes.get_errno() if result == -1 else 0
# What is left: its own signals and limits, and threads.
os.kill(os.getpid(), 0)
resource.getrlimit(resource.RLIMIT_NOFILE)
resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)
thread = threading.Thread(target=found.update, args=({"thread": 0},))
thread.start()
thread.join()
print(json.dumps(found))
"""


@pytest.mark.skipif(not GIVEN.network, reason="no seccomp filter for this system")
@pytest.mark.parametrize("user", [None, 65534])
def test_no_call_reaches_other_processes_or_the_system(user):
    if user is not None and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    at = ["x86_64", "aarch64"].index(platform.machine())
    calls = {
        name: [os.getpid() if value == "P" else value for value in (call[at], *call[2:])]
        for name, call in REACH_OUT.items()
    }
    command = [sys.executable, "-c", TRY_OUT, json.dumps([user, calls])]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found.pop("thread") == 0
    assert {name: code for name, code in found.items() if code != errno.EPERM} == {}


def call_out(task: Task) -> dict[str, int]:
    """What the kernel says to the calls above, of which `P` is the process that started the worker."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    at = ["x86_64", "aarch64"].index(platform.machine())
    found = {}
    for name, call in REACH_OUT.items():
        ctypes.set_errno(0)
        values = (os.getppid() if value == "P" else value for value in (call[at], *call[2:]))
        result = libc.syscall(*(ctypes.c_long(value) for value in values))
        found[name] = ctypes.get_errno() if result == -1 else 0
    return found


@pytest.mark.skipif(not GIVEN.network, reason="no seccomp filter for this system")
@pytest.mark.parametrize("way", WAYS)
def test_no_call_of_a_worker_reaches_who_started_it(tmp_path, way):
    (tmp_path / "clip").write_text("clip")
    found = only(call_out, (tmp_path / "clip",), way)
    assert {name: code for name, code in found.items() if code != errno.EPERM} == {}


@pytest.mark.skipif(not GIVEN.network, reason="no seccomp filter for this system")
def test_calls_of_newer_kernels_look_as_if_there_were_none():
    script = TRY_OUT.replace("found[name] =", "found[name] = number,")
    calls = {"clone3": [435, 0, 0], "next": [451, 0, 0], "some day": [700, 0, 0]}
    command = [sys.executable, "-c", script, json.dumps([None, calls])]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [found[name][1] for name in calls] == [errno.ENOSYS] * 3


def test_the_filters_of_both_machines_allow_the_same():
    from erv.media.syscalls import _ALLOWED, _BY_ARGUMENT

    # aarch64 has no older forms of some calls.
    older = {"open", "stat", "lstat", "access", "readlink", "dup2", "poll", "select", "time"}
    assert _ALLOWED["x86_64"].keys() - _ALLOWED["aarch64"].keys() == older
    assert _ALLOWED["aarch64"].keys() <= _ALLOWED["x86_64"].keys()
    assert _BY_ARGUMENT["x86_64"].keys() == _BY_ARGUMENT["aarch64"].keys()
    for numbers in (*_ALLOWED.values(), *_BY_ARGUMENT.values()):
        assert len(set(numbers.values())) == len(numbers)
