"""What a worker's home keeps goes by age, and never while a stage runs there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from erv.errors import StackError
from erv.pipeline import StageCancelledError
from erv.remote import checkout
from erv.remote.checkout import Home, HomeBusyError
from erv.remote.commit import REF, git
from erv.remote.fetched import note_fetched, stamp_of
from erv.remote.old_files import KEEP_DAYS, Freed, keep_days, remove_old, remove_old_once_a_day


def put(path: Path, days: float, text: str = "12345") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    age(path, days)
    return path


def has(home: Home, commit: str) -> bool:
    command = ["git", "-C", str(home.repository), "cat-file", "-e", commit]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def age(path: Path, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(path, (then, then))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "worker home")


def test_what_is_old_goes(home: Home) -> None:
    old = put(home.cache / "files/md5/ab/cdef", 31)
    old.chmod(0o444)  # as DVC leaves them
    young = put(home.cache / "files/md5/ab/ffff", 29)
    frames = put(home.sources / "ab/cd/1.png", 31).parent
    age(frames, 31)
    kept = put(home.sources / "ab/ef", 1)
    assert remove_old(home, 30, dry=True) == Freed(files=2, size=10)
    assert old.is_file()
    assert remove_old(home, 30) == Freed(files=2, size=10)
    assert not old.exists()
    assert not frames.exists()
    assert (young.is_file(), kept.is_file()) == (True, True)
    assert remove_old(home, 30) == Freed()


def test_commits_that_were_fetched_long_ago(home: Home, tmp_path: Path) -> None:
    work = tmp_path / "work"
    user = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    git(tmp_path, "init", "-q", str(work))
    commits = []
    for text in ("one", "two"):
        (work / "a.txt").write_text(text * 1000)
        git(work, "add", "-A")
        git(work, *user, "commit", "-qm", text)
        commits.append(git(work, "rev-parse", "HEAD").decode().strip())
        git(work, "checkout", "-q", "--orphan", f"after-{text}")
    home.folder.mkdir()
    git(home.folder, "init", "-q", "--bare", str(home.repository))
    for commit in commits:
        git(home.repository, "fetch", "-q", str(work), f"+{commit}:refs/erv/{commit}")
        note_fetched(home.repository, commit)
    age(stamp_of(home.repository, commits[0]), 31)
    (home.checkouts / "k-1/.erv/spool/x").mkdir(parents=True)
    (home.checkouts / "k-1/.erv/spool/x/run.json").write_text("{}")
    assert remove_old(home, 30).commits == 0, "a checkout that MLflow was not told of borrows from them"
    shutil.rmtree(home.checkouts / "k-1")
    assert remove_old(home, 30, dry=True).commits == 1
    assert remove_old(home, 30).commits == 1
    assert [has(home, commit) for commit in commits] == [False, True]
    # `git gc` has packed the ref of the other, which has no time of its own any more.
    assert not (home.repository / "refs/erv" / commits[1]).exists()
    age(stamp_of(home.repository, commits[1]), 31)
    assert remove_old(home, 30).commits == 1
    assert not has(home, commits[1])
    assert remove_old(home, 30) == Freed()
    assert not list(stamp_of(home.repository, "").iterdir())


def test_a_worker_notes_when_it_fetched_a_commit(home: Home, tmp_path: Path) -> None:
    work, bundle = tmp_path / "work", tmp_path / "one.bundle"
    user = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    git(tmp_path, "init", "-q", str(work))
    git(work, *user, "commit", "-q", "--allow-empty", "-m", "1")
    commit = git(work, "rev-parse", "HEAD").decode().strip()
    git(work, "update-ref", REF, commit)
    git(work, "bundle", "create", "-q", str(bundle), REF)
    store: Any = SimpleNamespace(download=lambda _uri, path: Path(shutil.copy(bundle, path)))
    home.fetch(store, "bucket", commit)
    assert stamp_of(home.repository, commit).stat().st_mtime > time.time() - 60
    git(home.repository, "gc", "-q")
    age(stamp_of(home.repository, commit), 31)
    assert remove_old(home, 30).commits == 1


def test_commits_that_an_earlier_version_fetched_go_too(home: Home, tmp_path: Path) -> None:
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", str(work))
    git(
        work,
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "1",
    )
    commit = git(work, "rev-parse", "HEAD").decode().strip()
    home.folder.mkdir()
    git(home.folder, "init", "-q", "--bare", str(home.repository))
    git(home.repository, "fetch", "-q", str(work), f"+{commit}:refs/erv/{commit}")
    git(home.repository, "pack-refs", "--all")
    assert remove_old(home, 30).commits == 0, "nobody can tell its age, so that counts from now on"
    age(stamp_of(home.repository, commit), 31)
    assert remove_old(home, 30).commits == 1
    git(home.repository, "fetch", "-q", str(work), f"+{commit}:refs/erv/{commit}")
    age(home.repository / "refs/erv" / commit, 31)
    assert remove_old(home, 30).commits == 1, "its ref has the time"


@contextmanager
def attempt(home: Home, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process in which an attempt lives."""
    code = (
        "import sys, time; from pathlib import Path; from erv.remote.checkout import Home\n"
        "lock = Home(Path(sys.argv[1]))._begin(sys.argv[2]); print('lives', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(home.folder), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "lives\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_nothing_goes_while_a_stage_runs(home: Home) -> None:
    old = put(home.cache / "files/md5/ab/cdef", 31)
    with attempt(home, "key-1") as process:
        theirs = put(home.checkouts / "key-1/params.yaml", 31)
        assert remove_old(home, 30) == Freed(running=1)
        assert old.is_file()
        with pytest.raises(StageCancelledError, match=r"it runs in .* already"):
            home._begin("key-1")
        home._begin("key-2").release()
        assert theirs.is_file(), "of another worker, which lives"
        process.kill()
        process.wait()
    assert remove_old(home, 30) == Freed(files=1, size=5)
    assert not (home.checkouts / "key-1").exists(), "nobody else would remove it"


@contextmanager
def paused(home: Home) -> Iterator[None]:
    """A worker that was stopped while it holds the home."""
    code = (
        "import sys, time; from pathlib import Path; from erv.remote.checkout import Home\n"
        "with Home(Path(sys.argv[1])).alone():\n    print('holds', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home.folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.kill()


def test_a_worker_that_is_paused_does_not_stop_all_others_of_its_home(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They waited for it without end, and without a word, and seemed to live."""
    monkeypatch.setattr(checkout, "_PATIENCE_SECONDS", 0.6)
    sentence = r"repository.lock: another worker has held this home for 0.01 min; unless it fetches .*`fuser "
    with paused(home):
        for call in (home.leftovers, lambda: home._begin("key-1"), lambda: remove_old(home, 30)):
            with pytest.raises(HomeBusyError, match=sentence):
                call()
    assert home.leftovers() == []


def test_a_stage_that_has_ended_is_not_lost_to_a_paused_worker(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "_END_SECONDS", 0.6)
    monkeypatch.setattr(Home, "fetch", lambda *_given: home.repository)
    monkeypatch.setattr(Home, "_set_up", lambda *_given: None)
    home.folder.mkdir()
    user = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    git(home.folder, "init", "-q", str(home.repository))
    git(home.repository, *user, "commit", "-q", "--allow-empty", "-m", "1")
    commit = git(home.repository, "rev-parse", "HEAD").decode().strip()
    request: Any = SimpleNamespace(bucket="b", commit=commit, patch=None, files={})
    nowhere: Any = None
    with ExitStack() as later:
        with home.checkout(nowhere, nowhere, request, "key-1") as folder:
            later.enter_context(paused(home))
        assert folder.is_dir(), "nobody may remove it now"
    home._begin("key-2").release()
    assert not folder.exists()


def test_a_living_checkout_is_no_leftover(home: Home) -> None:
    """Its run is noted in the spool while it runs; the other worker of the home took it for an ended one."""
    note = home.checkouts / "key-1/.erv/spool/x/run.json"
    with attempt(home, "key-1"):
        put(note, 0)
        assert home.leftovers() == []
    assert home.leftovers() == [home.checkouts / "key-1"]
    home._begin("key-2").release()
    assert note.is_file(), "MLflow is told of it first"


def test_a_worker_looks_once_a_day(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    old = put(home.cache / "files/md5/ab/cdef", 31)
    assert remove_old_once_a_day(home, 0) == Freed()
    assert old.is_file()
    assert remove_old_once_a_day(home, 30).files == 1
    put(old, 31)
    assert remove_old_once_a_day(home, 30).files == 0
    age(home.folder / "tidied", 2)
    assert remove_old_once_a_day(home, 30).files == 1
    assert keep_days() == KEEP_DAYS
    monkeypatch.setenv("ERV_WORKER_KEEP_DAYS", "0.5")
    assert keep_days() == 0.5
    for wrong in ("a week", "-1", "inf", "nan"):
        monkeypatch.setenv("ERV_WORKER_KEEP_DAYS", wrong)
        with pytest.raises(StackError, match=r"ERV_WORKER_KEEP_DAYS is '.*'; expected a number of days"):
            keep_days()
