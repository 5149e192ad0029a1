"""What is in DVC's remote, told from two listings."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from erv import pipeline
from erv.environment import Environment, child_environment
from erv.stack.dvc_remote import write_dvc_remote
from erv.stack.stored import all_stored
from erv.storage.store import open_store

pytestmark = pytest.mark.integration

PIPELINE = """
stages:
  one: {cmd: "cp given one.txt", deps: [given], outs: [one.txt]}
  folder: {cmd: "mkdir -p made && echo a > made/a && echo b > made/b", deps: [given], outs: [made]}
"""


@pytest.fixture
def environment(stack: Environment, tmp_path: Path) -> Environment:
    bucket = "stored"
    open_store(stack).ensure_bucket(bucket)
    environment = replace(stack, workspace=tmp_path, dvc_bucket=bucket)
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "params.yaml").write_text("{}\n")
    (tmp_path / "given").write_text("one\n")
    dvc(environment, "init", "--no-scm", "-q")
    dvc(environment, "config", "core.remote", "erv")
    write_dvc_remote(environment)
    return environment


def dvc(environment: Environment, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=environment.workspace, env=child_environment(environment), check=True, capture_output=True,
    )  # fmt: skip


def push(environment: Environment) -> None:
    pipeline.push(workspace=environment.workspace, environment=child_environment(environment))


@pytest.mark.slow
def test_what_a_push_would_store(environment: Environment) -> None:
    root, store = environment.workspace, open_store(environment)
    dvc(environment, "repro", "-q")
    assert not all_stored(environment)
    push(environment)
    assert all_stored(environment)

    def without(uri: str) -> bool:
        """What is said while an object is missing; a push brings it back."""
        store.delete(uri)
        known = all_stored(environment)
        push(environment)
        assert all_stored(environment)
        return known

    bucket = f"s3://{environment.dvc_bucket}"
    lock = pipeline.read_lock_entries(root / "dvc.lock")
    one, made = (lock[name]["outs"][0]["md5"] for name in ("one", "folder"))
    keys = [info.key for info in store.list(f"{bucket}/files/md5")]
    inside = next(key for key in keys if not key.endswith((one[2:], ".dir")))
    run = next(info.key for info in store.list(f"{bucket}/runs"))
    for key in (f"files/md5/{one[:2]}/{one[2:]}", f"files/md5/{made[:2]}/{made[2:]}", run):
        assert not without(f"{bucket}/{key}"), key
    store.delete(f"{bucket}/{inside}")  # last, since DVC takes a folder for complete whose listing is there
    assert not all_stored(environment)
    store.delete(f"{bucket}/files/md5/{made[:2]}/{made[2:]}")
    push(environment)
    assert all_stored(environment)

    listing = root / ".dvc/cache/files/md5" / made[:2] / made[2:]
    listing.rename(root / "gone")
    assert not all_stored(environment), "nobody knows here what is in the folder"
    (root / "gone").rename(listing)
    dvc(environment, "config", "core.remote", "other")
    assert not all_stored(environment), "another remote is DVC's default"
