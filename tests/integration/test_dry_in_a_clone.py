"""`erv run --dry` in a fresh clone: results that a colleague has pushed are fetched, not made again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from erv.pipeline import read_lock_entries
from erv.storage.store import open_store
from tests.integration.scratch import PIPELINE, Scratch
from tests.integration.test_connect import ERV, clone, git, run, variables

pytestmark = pytest.mark.integration

__all__ = ["clone"]

# With a folder, of which one stage reads a part and another all.
MORE = """
  folder:
    cmd: mkdir -p tree/in && cp joined.txt tree/in/a && cp joined.txt tree/b
    deps: [joined.txt]
    outs: [tree]
  part:
    cmd: cp tree/in/a part.txt
    deps: [tree/in]
    outs: [part.txt]
"""
ALL = ("make@a", "make@b", "join", "last", "folder", "part")


@pytest.fixture(scope="module")
def colleague(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    scratch = Scratch(tmp_path_factory.mktemp("pushed"), stack)
    (scratch.folder / "dvc.yaml").write_text(PIPELINE + MORE)
    scratch.python("-m", "dvc", "repro", "-q")
    scratch.python("-m", "dvc", "push", "-q")
    (scratch.folder / ".gitignore").write_text("/.erv/\n/part.txt\n/last.txt\n/joined.txt\n/tree\n")
    git(scratch.folder, "add", "--all")
    git(scratch.folder, "commit", "-qm", "run")
    return scratch


@pytest.fixture
def fresh(colleague: Scratch, clone: Path) -> Path:
    said = run(clone, variables(colleague), *ERV, "connect")
    assert said.returncode == 0, said.stderr
    return clone


def states(clone: Path, shell: dict[str, str]) -> dict[str, str]:
    said = run(clone, shell, *ERV, "run", "--dry", "--json")
    assert said.returncode == 0, said.stderr
    return {stage["name"]: stage["state"] for stage in json.loads(said.stdout)["stages"]}


def content(clone: Path) -> set[str]:
    return {str(path) for path in clone.rglob("*") if path.is_file() and not {".git", "tmp"} & {*path.parts}}


def outcomes(said: subprocess.CompletedProcess[str]) -> str:
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


@pytest.mark.slow
def test_what_the_remote_has_does_not_run(colleague: Scratch, fresh: Path) -> None:
    shell, before = variables(colleague), content(fresh)
    assert states(fresh, shell) == dict.fromkeys(ALL, "from remote")
    text = run(fresh, shell, *ERV, "run", "--dry").stdout.splitlines()
    assert text == [
        "6 stages: 6 have their results in DVC's remote",
        "  in DVC's remote: make@a, make@b, join, folder, last, part",
        "  `dvc pull` fetches these results first; `erv run` does so by itself",
    ]
    assert content(fresh) == before, "it fetches nothing"
    said = outcomes(run(fresh, shell, *ERV, "run", seconds=400))
    assert "Running stage" not in said
    assert states(fresh, shell) == dict.fromkeys(ALL, "unchanged")


def test_a_shell_without_the_store_is_sent_to_pull(colleague: Scratch, fresh: Path) -> None:
    bare = colleague.variables()
    text = run(fresh, bare, *ERV, "run", "--dry").stdout
    assert "6 stages: 6 have their results in DVC's remote" in text
    assert (
        "`dvc pull` fetches these results first; `erv run` can't, as this shell names no object store" in text
    )
    assert run(fresh, bare, "-m", "dvc", "pull", "-q").returncode == 0
    assert states(fresh, bare) == dict.fromkeys(ALL, "unchanged")


def test_what_changed_runs_and_what_it_reads_is_fetched(colleague: Scratch, fresh: Path) -> None:
    (fresh / "control/join.txt").write_text("0 other\n")
    shell = variables(colleague)
    told = states(fresh, shell)
    below = dict.fromkeys(("join", "last", "folder", "part"), "runs")
    assert told == {"make@a": "from remote", "make@b": "from remote", **below}
    said = outcomes(run(fresh, shell, "-m", "dvc", "repro", "--pull"))
    ran = {name for name in ALL if f"Running stage '{name}'" in said}
    assert {name for name, state in told.items() if state == "from remote"}.isdisjoint(ran)
    assert "join" in ran


def test_a_result_that_the_remote_lacks_runs(colleague: Scratch, fresh: Path) -> None:
    """Of a folder, one file is enough."""
    store, bucket = open_store(colleague.environment), colleague.environment.dvc_bucket
    tree = read_lock_entries(fresh / "dvc.lock")["folder"]["outs"][0]["md5"]
    listing = json.loads(store.read(f"s3://{bucket}/files/md5/{tree[:2]}/{tree[2:]}"))
    assert len({item["md5"] for item in listing}) == 1, "both are a copy of joined.txt"
    lost = listing[0]["md5"]
    uri = f"s3://{bucket}/files/md5/{lost[:2]}/{lost[2:]}"
    kept = store.read(uri)
    store.delete(uri)
    try:
        told = states(fresh, variables(colleague))
    finally:
        store.write(kept, uri)
    assert told["make@a"] == "from remote"
    assert told["join"] == "runs", "it is joined.txt, too"
    assert told["folder"] == "runs"


def test_lock_entries_that_do_not_fit_each_other_run(colleague: Scratch, fresh: Path) -> None:
    """As a merge of two branches may leave them: `last` read another joined.txt than `join` has written."""
    lock = fresh / "dvc.lock"
    joined = read_lock_entries(lock)["join"]["outs"][0]["md5"]
    head, last = lock.read_text().split("\n  last:\n")
    lock.write_text(f"{head}\n  last:\n{last.replace(joined, 'a' * 32, 1)}")
    told = states(fresh, variables(colleague))
    assert (told["join"], told["last"], told["folder"]) == ("from remote", "runs", "from remote")


def test_a_remote_that_is_away_is_named(colleague: Scratch, fresh: Path) -> None:
    shell = variables(colleague, ERV_S3_ENDPOINT="http://127.0.0.1:9")
    said = run(fresh, shell, *ERV, "run", "--dry")
    assert said.returncode == 0, said.stderr
    assert "6 stages: 1 would run" not in said.stdout
    assert "S3 at http://127.0.0.1:9 can't be reached" in " ".join(said.stdout.split())
