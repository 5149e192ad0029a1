"""`erv gc` on a real store: what is old goes, what somebody may need stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.remote.board import Board
from erv.remote.commit import bundle_uri, send_commit
from erv.remote.old_boards import Cleared, clear
from erv.storage.store import Store, open_store
from tests.integration.scratch import Scratch

pytestmark = pytest.mark.integration
SECOND = 1 / 86_400
NEW, OLD = "b" * 40, "a" * 40


@pytest.fixture
def bucket(stack: Environment, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-")[:50]
    open_store(stack).ensure_bucket(name)
    return name


def test_ages_are_those_of_the_server(stack: Environment, bucket: str) -> None:
    store = open_store(stack)
    uri = f"s3://{bucket}/one"
    assert store.age(uri) is None
    store.write(b"1", uri)
    time.sleep(1.1)
    assert 1 <= (store.age(uri) or 0) < 60
    (info,) = store.list(f"s3://{bucket}")
    assert info.modified is not None
    assert 1 <= (store.now(bucket) - info.modified).total_seconds() < 60


def test_what_is_old_goes(stack: Environment, bucket: str) -> None:
    store = open_store(stack)
    old, young, waited = (Board(store, bucket, key) for key in ("old", "young", "waited"))
    for board in (old, young, waited):
        board.begin(1, {"commit": NEW if board is young else OLD})
        board.beat(1, {"count": 1})
    old.supersede(1, "gone")
    old.begin(2, {"commit": OLD})
    old.finish(2, {"entry": {}})
    for commit in (NEW, OLD, "c" * 40):
        store.write(b"bundle", bundle_uri(bucket, commit))
    store.write(b"x", f"s3://{bucket}/files/md5/ab/cd")
    time.sleep(4)
    young.beat(1, {"count": 2})
    waited.wait("somebody")

    foreseen = clear(store, bucket, 3 * SECOND, dry=True)
    assert (foreseen.stages, foreseen.commits, foreseen.kept) == (1, 1, 4)
    assert old.newest() == 2
    assert clear(store, bucket, 3 * SECOND) == foreseen
    assert old.newest() == 0
    assert (young.newest(), waited.newest()) == (1, 1)
    assert [store.exists(bundle_uri(bucket, one)) for one in (NEW, OLD, "c" * 40)] == [True, True, False]
    assert store.exists(f"s3://{bucket}/files/md5/ab/cd"), "DVC's remote is not ours"
    assert clear(store, bucket, 3 * SECOND) == Cleared(0, 0, 0, 4)


def test_a_commit_that_was_sent_long_ago_is_sent_again(
    stack: Environment, bucket: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could be removed as old between the question whether it is there and the worker's fetch."""
    from tests.integration.test_placement_ahead import commit

    scratch = Scratch(tmp_path_factory.mktemp("sent"), stack)
    commit(scratch.folder)
    from erv.remote.commit import commit_of

    head, store = commit_of(scratch.folder), open_store(stack)

    def sent(after: float) -> float:
        time.sleep(after)
        send_commit(store, bucket, scratch.folder, head, say=print)
        return store.age(bundle_uri(bucket, head)) or 0.0

    sent(0)
    assert sent(2.1) >= 2
    monkeypatch.setattr("erv.remote.commit.FRESH_SECONDS", 1.0)
    assert sent(0) < 2


def test_the_command(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("gc"), stack)
    home = scratch.folder / ".erv/worker"
    store: Store = open_store(stack)
    store.write(b"1" * 2_000_000, bundle_uri(scratch.environment.dvc_bucket, OLD))
    where = f"s3://{scratch.environment.dvc_bucket}/remote"
    assert (
        scratch.erv("gc").stdout == f"{where}: removed 0 stages and 0 commits, 0.0 MB; kept 1 younger one\n"
    )
    file = home / "cache/files/md5/ab/cdef"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1" * 3_000_000)
    import os

    os.utime(file, (1, 1))
    said = scratch.erv("gc", "--dry").stdout.splitlines()
    assert said[1] == f"{home}: would remove 1 file and 0 commits, 3.0 MB"
    assert file.is_file()
    assert scratch.erv("gc", "--older-than", "3").stdout.splitlines()[1].startswith(f"{home}: removed 1 file")
    assert not file.exists()
    refused = scratch.erv("gc", "--older-than", "1", check=False)
    assert refused.returncode == 2


def test_dvc_fetches_again_what_was_removed_from_a_cache(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also if only some files of a folder were, as their ages differ."""
    scratch = Scratch(tmp_path_factory.mktemp("again"), stack)
    scratch.python("-m", "dvc", "repro", "-q")
    (scratch.folder / "made/a.txt").parent.mkdir(exist_ok=True)
    (scratch.folder / "dvc.yaml").open("a").write(
        "  tree:\n    cmd: mkdir -p tree && cp made/a.txt tree/a && cp last.txt tree/b\n"
        "    deps: [made/a.txt, last.txt]\n    outs: [tree]\n"
    )
    scratch.python("-m", "dvc", "repro", "-q")
    scratch.python("-m", "dvc", "push", "-q")
    import hashlib
    import shutil

    content = (scratch.folder / "tree/a").read_bytes()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    cached: Path = scratch.folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    cached.unlink()
    shutil.rmtree(scratch.folder / "tree")
    scratch.python("-m", "dvc", "pull", "-q", "tree")
    assert (scratch.folder / "tree/a").read_bytes() == content
