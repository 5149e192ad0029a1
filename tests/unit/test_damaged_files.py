"""Input files that are cut short or hold something else: one sentence that names the file, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment
from erv.errors import DataError, ErvError, EvaluationError, SettingsError
from erv.evaluate.evaluate import read_predictions
from erv.extract.extract import quarantine_reasons
from erv.files import content_digest, parse_yaml, read_document, read_parquet
from erv.lineage.clips import _rows
from erv.manifest import read_manifest
from erv.pipeline.lock_file import KEPT
from erv.policies.common.families import read_config
from erv.sentences import read_sentences
from erv.settings import load_settings
from erv.shards import ShardReader
from erv.sources import Lock
from erv.stage import _damaged_input
from erv.train_erv.train_erv import load_splits
from erv.verifier.model import read_metrics

DAMAGES = {"six bytes": b"PAR1\x00\x00", "empty": b"", "noise": bytes(range(256)), "nested": b"[" * 100_000}
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "predictions": ("p.parquet", read_predictions),
    "quarantine": ("q.parquet", quarantine_reasons),
    "sentences": ("s.parquet", read_sentences),
    "labelled sentences": ("s.parquet", lambda path: load_splits(path, ("anger",))),
    "manifest": ("m.parquet", read_manifest),
    "rows of a clip": ("m.parquet", lambda path: _rows(path, "1")),
    "shards": ("shard-00000.parquet", lambda path: ShardReader(path.parent)),
    "any parquet": ("a.parquet", lambda path: read_parquet(path, "extract")),
    "document": ("d.json", lambda path: read_document(path, "distill")),
    "source lock": ("l.lock.json", Lock.load),
    "metrics of a verifier": ("metrics.json", lambda path: read_metrics(path.parent)),
    "configuration of a policy": ("config.json", lambda path: read_config(path.parent)),
    "parameters": ("params.yaml", load_settings),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("what", list(READERS))
def test_readers_name_the_damaged_file(tmp_path: Path, what: str, damage: str) -> None:
    name, read = READERS[what]
    (tmp_path / name).write_bytes(DAMAGES[damage])
    with pytest.raises(ErvError) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "text",
    [
        "a: 2026-99-99",
        "a: !!int ''",
        "a: !!timestamp x",
        f"a: {'9' * 5000}",
        "a: !!bool x",
        "- " * 100_000,
        "\n".join(" " * depth + "a:" for depth in range(1000)),
        "? " * 100_000,
        "\x00",
    ],
)
def test_yaml_that_its_parser_stumbles_over(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"^not valid YAML \([^\n]*\)$"):
        parse_yaml(text.encode())
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"params\.yaml: not valid YAML"):
        load_settings(tmp_path / "params.yaml")


def test_a_parquet_without_a_column_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"other": [1]}), tmp_path / "a.parquet")
    for read, error in ((read_sentences, DataError), (read_predictions, EvaluationError)):
        with pytest.raises(error, match=r"a\.parquet: lacks the columns "):
            read(tmp_path / "a.parquet")


STAGE = """
import sys
from pathlib import Path
from erv.stage import Option, run_stage

def main(arguments, settings, run):
    raise ValueError(arguments.model.read_bytes()[:20])

run_stage("sft", main, Option("model", Path))
"""


def test_a_stage_that_stumbles_over_a_damaged_input_names_it(tmp_path: Path) -> None:
    """Whatever library reads it: a safetensors file, say, that transformers can't open."""
    root = Path(__file__).parents[2]
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    (tmp_path / "work.py").write_text(STAGE)
    model = tmp_path / "models/verifier/model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"whole")
    out = {"path": "models/verifier", "hash": "md5", "md5": content_digest(model.parent)}
    lock = {"schema": "2.0", "stages": {"train_erv": {"cmd": "x", "outs": [out]}}}
    (tmp_path / "dvc.lock").write_text(json.dumps(lock))  # JSON is YAML

    def run() -> str:
        result = subprocess.run(
            [sys.executable, "work.py", "--model", "models/verifier/model.safetensors"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root / "src")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 1
        return result.stderr

    assert "Traceback" in run()  # the input is whole: a bug of the stage
    model.write_bytes(b"whale")
    said = run()
    assert "Traceback" not in said
    assert said.endswith(
        "error: sft: models/verifier: not what train_erv wrote; delete it and run `erv run train_erv`, or"
        " keep the change with `dvc commit train_erv`\n"
    )


def test_a_stage_does_not_start_on_an_input_that_changed_under_its_time(tmp_path: Path) -> None:
    """DVC calls a file unchanged by its size and time; one flipped bit was read without a word."""
    root = Path(__file__).parents[2]
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    (tmp_path / "work.py").write_text(
        "from pathlib import Path\n"
        "from erv.stage import Option, run_stage\n"
        "run_stage('sft', lambda a, s, r: Path('out').write_text('made'), Option('model', Path))\n"
    )
    model = tmp_path / "models/verifier/model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"whole")
    before = model.stat()
    out = {"path": "models/verifier", "hash": "md5", "md5": content_digest(model.parent)}
    # An output of another policy that is not there is no input.
    gone = {"path": "models/verifier/gone", "hash": "md5", "md5": "0" * 32}
    lock = {"train_erv": {"cmd": "x", "outs": [out]}, "other": {"cmd": "x", "outs": [gone]}}
    (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": lock}))

    def run() -> int:
        return subprocess.run(
            [sys.executable, "work.py", "--model", "models/verifier"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root / "src")},
            capture_output=True, check=False,
        ).returncode  # fmt: skip

    model.write_bytes(b"whale")
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run() == 1
    assert not (tmp_path / "out").exists()
    model.write_bytes(b"whole")
    assert run() == 0


def test_an_older_copy_of_the_lock_refuses_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is not renewed while another stage's DVC rewrites the lock."""
    monkeypatch.chdir(tmp_path)
    model = Path("models/verifier")
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"newer")
    arguments, environment = Namespace(model=model), Environment(tmp_path)

    def write(path: Path, md5: str) -> None:
        out = {"path": "models/verifier", "hash": "md5", "md5": md5}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schema": "2.0", "stages": {"train_erv": {"cmd": "x", "outs": [out]}}}))

    write(tmp_path / KEPT, "0" * 32 + ".dir")
    write(tmp_path / "dvc.lock", content_digest(model))
    assert _damaged_input("sft", arguments, environment) is None
    write(tmp_path / "dvc.lock", "1" * 32 + ".dir")
    assert "not what train_erv wrote" in str(_damaged_input("sft", arguments, environment))
