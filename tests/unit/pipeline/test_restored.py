"""What DVC restores is what `dvc.lock` names, whatever happened to its cache and to the remote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from erv import pipeline
from erv.files import content_digest, md5_of_file
from erv.pipeline.restored import damaged_outputs

PIPELINE = """
stages:
  make:
    cmd: mkdir -p out && echo weights > out/a && echo config > out/b && echo figures > single && echo x >> ran
    deps: [dep]
    outs: [out, single]
"""


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository and its remote, in which the stage has run once."""
    folder = tmp_path_factory.mktemp("restored")
    root = folder / "work"
    root.mkdir()
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "dep").write_text("x")
    dvc(root, "init", "--no-scm", "-q")
    dvc(root, "remote", "add", "-d", "store", "../remote")
    pipeline.repro("make", workspace=root)
    pipeline.push(workspace=root)
    return folder


class Workspace:
    """A copy of the repository and its remote, with the outputs gone."""

    def __init__(self, made: Path, folder: Path) -> None:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        self.root, self.remote = folder / "work", folder / "remote" / "files" / "md5"
        self.cache = self.root / ".dvc/cache/files/md5"
        self.before = (self.root / "dvc.lock").read_bytes()
        self.entry = pipeline.read_lock_entries(self.root / "dvc.lock")["make"]
        self.hashes = {out["path"]: out["md5"] for out in self.entry["outs"]}
        self.hashes["out/a"] = md5_of_file(self.root / "out/a")
        shutil.rmtree(self.root / "out")
        (self.root / "single").unlink()

    def flip(self, store: Path, path: str) -> None:
        """One bit of an object, with its time of change and its mode as they were."""
        file = store / self.hashes[path][:2] / self.hashes[path][2:]
        before = file.stat()
        file.chmod(0o644)
        content = bytearray(file.read_bytes())
        content[3] ^= 1
        file.write_bytes(content)
        file.chmod(before.st_mode & 0o777)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def restore(self, *, pull: bool) -> tuple[str, list[str]]:
        lines: list[str] = []
        outcome = pipeline.repro("make", workspace=self.root, pull=pull, on_line=lines.append).outcome
        assert {p: content_digest(self.root / p) for p in ("out", "single")} == {
            path: self.hashes[path] for path in ("out", "single")
        }
        assert (self.root / "dvc.lock").read_bytes() == self.before
        return outcome, lines

    def times(self) -> int:
        return len((self.root / "ran").read_text().splitlines())


@pytest.mark.parametrize("path", [pytest.param("single", marks=pytest.mark.slow), "out/a"])
def test_a_flipped_bit_in_the_cache_is_fetched_again(made: Path, tmp_path: Path, path: str) -> None:
    space = Workspace(made, tmp_path)
    space.flip(space.cache, path)
    outcome, lines = space.restore(pull=True)
    assert (outcome, space.times()) == ("restored", 1)
    said = f"WARNING: make: {path[:6].removesuffix('/a')} was restored, but is not what dvc.lock names"
    assert [line for line in lines if line.startswith(said)] == [f"{said}; restoring it again"]


def test_without_a_remote_the_stage_runs_again(made: Path, tmp_path: Path) -> None:
    space = Workspace(made, tmp_path)
    space.flip(space.cache, "out/a")
    assert space.restore(pull=False)[0] == "ran"
    assert space.times() == 2


@pytest.mark.parametrize("verify", [pytest.param("true", marks=pytest.mark.slow), "false"])
def test_a_changed_object_of_the_remote_is_not_used(made: Path, tmp_path: Path, verify: str) -> None:
    space = Workspace(made, tmp_path)
    dvc(space.root, "config", "remote.store.verify", verify)
    shutil.rmtree(space.root / ".dvc/cache/files")
    space.flip(space.remote, "out/a")
    assert space.restore(pull=True)[0] == "ran"
    assert space.times() == 2


@pytest.mark.slow
def test_a_damaged_listing_of_a_folder_is_replaced(made: Path, tmp_path: Path) -> None:
    space = Workspace(made, tmp_path)
    listing = space.cache / space.hashes["out"][:2] / space.hashes["out"][2:]
    listing.chmod(0o644)
    listing.write_bytes(b"[{")
    listing.chmod(0o444)
    space.restore(pull=True)


def test_damaged_outputs_are_named(made: Path) -> None:
    entry = pipeline.read_lock_entries(made / "work/dvc.lock")["make"]
    assert damaged_outputs(entry, made / "work") == []
    assert damaged_outputs(entry, made) == ["out", "single"]
    assert damaged_outputs({}, made) == []
