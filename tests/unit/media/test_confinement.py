"""What a media worker can still do: read its clip, and nothing else, as far as the kernel enforces it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from erv.doctor.doctor import examine
from erv.media.confinement import Confinement, tried
from erv.media.workers import isolated
from tests.support.media import Task

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


def only(function, files, **given):
    (outcome,) = isolated(function, [Task(files)], workers=1, seconds=30, confined=True, **given)
    assert outcome.failure is None
    return outcome.result


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Landlock is Linux's")
def test_a_worker_reads_its_clip_alone(tmp_path, monkeypatch):
    other, clip = tmp_path / "other", tmp_path / "clip"
    other.write_text("secret")
    clip.write_text("clip")
    monkeypatch.setenv("PYTHON_TEST_OTHER", str(other))
    said = only(read_other, (clip,))
    assert said == "clip " + " ".join(["refused" if GIVEN.files else "done"] * 4)


def test_a_worker_has_no_network_and_starts_no_program(tmp_path):
    (tmp_path / "clip").write_text("clip")
    if not GIVEN.network:
        assert "network" in GIVEN.gaps
        return
    assert only(reach_out, (tmp_path / "clip",)) == "refused refused refused refused"


def load_libraries() -> None:
    """As `erv.media.decode.load_decoders`; fails if that starts threads."""
    from erv.media.decode import load_decoders

    load_decoders()
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise RuntimeError("a library has started a thread, which Landlock does not bind")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Landlock is Linux's")
def test_a_worker_has_a_single_thread_and_no_keys(tmp_path, monkeypatch):
    (tmp_path / "clip").write_text("clip")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("ERV_S3_SECRET_KEY", "x")
    assert only(secrets, (tmp_path / "clip",), prepare=load_libraries) == []


def test_an_item_may_have_many_files(tmp_path):
    files = tuple(tmp_path / f"{number:03d}" for number in range(450))
    for file in files:
        file.write_text(file.name)
    assert only(joined, files) == "".join(file.name for file in files)


def joined(task: Task) -> str:
    return "".join(file.read_text() for file in task.files)


def test_a_file_that_is_larger_than_the_memory_of_an_item(tmp_path):
    with (tmp_path / "clip").open("wb") as file:
        file.truncate(60_000_000)
    task = Task((tmp_path / "clip",))
    (outcome,) = isolated(secrets, [task], workers=1, seconds=30, memory_mb=50, confined=True)
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
    """The filter of system calls can also take Landlock's away, as an older kernel or a container does."""
    script = (
        "import erv.media.confinement as c; c._REFUSED['x86_64'] = {'landlock': 444};"
        "c._REFUSED['aarch64'] = {'landlock': 444}; import ctypes;"
        "libc = ctypes.CDLL(None, use_errno=True); libc.prctl(38, 1, 0, 0, 0); assert c._refuse_calls(libc);"
        "c.attempt()"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert '"landlock": 0' in run.stdout
