"""A disk that is really full: one sentence, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from erv.errors import full_disk
from tests.conftest import ROOT
from tests.support.small_disk import left, on_small_disk

WRITERS = """
import json, sqlite3, sys
from pathlib import Path
from erv.errors import full_disk
from erv.files import whole_file, whole_folder, write_document

import numpy as np, pyarrow as pa, pyarrow.parquet as pq, torch
from safetensors.numpy import save_file

disk, big = Path("disk"), np.random.default_rng(0).integers(0, 255, 4_000_000, dtype=np.uint8)

def sqlite(path):
    with sqlite3.connect(path) as database:
        database.execute("create table t (x blob)")
        database.execute("insert into t values (?)", (big.tobytes(),))

writers = {
    "bytes": lambda path: path.write_bytes(big.tobytes()),
    "numpy": lambda path: np.save(path.open("wb"), big),
    "parquet": lambda path: pq.write_table(pa.table({"x": big}), path),
    "safetensors": lambda path: save_file({"x": big}, path),
    "torch": lambda path: torch.save(torch.from_numpy(big), path),
    "sqlite": sqlite,
}
for name, write in writers.items():
    try:
        with whole_file(disk / name) as path:
            write(path)
    except Exception as error:
        print(name, type(error).__name__, full_disk(error))
    else:
        print(name, "wrote")
try:
    with whole_folder(disk / "folder") as folder:
        (folder / "a").write_bytes(b"x")
        (folder / "b").write_bytes(big.tobytes())
except OSError as error:
    print("folder", full_disk(error))
"""
STAGE = """
from pathlib import Path
from erv.files import write_text
from erv.stage import Option, run_stage

def main(arguments, settings, run):
    for number in range(9):
        write_text("x" * 300_000, arguments.out / f"{number}.txt")

run_stage("report", main, Option("out", Path))
"""


def test_every_writer_ends_with_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    result = on_small_disk(tmp_path / "disk", 1024, "-c", WRITERS, cwd=tmp_path)
    lines = result.stdout.partition("left:")[0].splitlines()
    assert result.returncode == 0, result.stderr
    assert len(lines) == 7, result.stdout
    for line, name in zip(
        lines, ["bytes", "numpy", "parquet", "safetensors", "torch", "sqlite", "folder"], strict=True
    ):
        assert line.startswith(name)
        assert f"disk/{name}: the disk" in line, line
        assert "the disk is full or its quota is used up (file system " in line, line
        assert "MB free); free space there" in line
    assert [name for name in left(result) if "sqlite" not in name] == []  # SQLite keeps a journal


def test_a_stage_names_the_file_and_the_file_system(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    result = on_small_disk(tmp_path / "disk", 1024, "-c", STAGE, "--out", "disk", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: report: disk/3.txt: the disk is full or its quota is used up")
    assert f"(file system {tmp_path}/disk, 0 MB free)" in last
    assert [Path(name).name for name in sorted(left(result))] == ["0.txt", "1.txt", "2.txt"]


def test_temporary_files_move_to_the_workspace_when_their_disk_is_full(tmp_path: Path) -> None:
    code = (
        "import tempfile; from erv.environment import isolate, load_environment;"
        "print(tempfile.gettempdir()); isolate(load_environment('.')); print(tempfile.gettempdir());"
        "tempfile.TemporaryFile().write(bytes(5_000_000))"
    )
    disk = tmp_path / "disk"
    result = on_small_disk(disk, 1024, "-c", code, cwd=tmp_path, TMPDIR=str(disk))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:2] == [str(disk), str(tmp_path / ".erv/tmp")]


@pytest.mark.parametrize("error", [ValueError("no"), FileNotFoundError(2, "No such file", "x")])
def test_other_errors_say_nothing_of_the_disk(error: Exception) -> None:
    assert full_disk(error) is None
