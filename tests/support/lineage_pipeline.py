"""What a run of the pipeline leaves, made in no time: tables of stages, `dvc.lock`, objects in the remote.

No stage runs. Lock entries have the stages, paths and hashes of real ones, and a real publication follows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from erv.distill.table import SCHEMA as SENTENCES
from erv.environment import Environment, isolate
from erv.exclusions import Excluded, write_exclusions
from erv.files import content_digest, md5_of_file, write_document, write_text
from erv.lineage.made import run_cache_key
from erv.manifest import ClipRow, read_table, write_manifest, write_table
from erv.pinning import pin
from erv.register.publish import PublishResult, publish
from erv.register.register import write_candidate
from erv.settings import load_settings
from erv.shards import QUARANTINE_SCHEMA
from erv.storage.store import open_store
from erv.tracking.lock_entries import entry_hash
from erv.training_sets import hash_of_rows, training_rows
from tests.conftest import ROOT
from tests.unit.register.test_register import SERVING, WORTH, comparison_of, predictions, write_evaluation

NAME = "emotion-policy"
PIPELINE = """
stages:
  ingest: {matrix: {dataset: [mafw, reasoning]}, cmd: x}
  extract: {matrix: {dataset: [mafw, reasoning]}, cmd: x}
  leakage: {cmd: x}
  sft: {cmd: x}
  distill: {cmd: x}
  train_erv: {cmd: x}
  grpo: {matrix: {variant: [erv]}, cmd: x}
  evaluate: {matrix: {policy: [erv]}, cmd: x}
  register: {cmd: x}
"""
BASE = "data/sources/base.lock.json"
_LEFT_OUT = "data/exclusions.json"
_SETS = "data/training_sets.json"
_LEAKAGE = "data/leakage.json"
# Stage -> what it reads, the parameters that its entry keeps, what it writes.
STAGES: dict[str, tuple[list[str], dict[str, Any], list[str]]] = {
    "ingest@mafw": ([], {}, ["data/manifest/mafw.parquet"]),
    "ingest@reasoning": ([], {}, ["data/manifest/reasoning.parquet"]),
    "extract@mafw": (["data/manifest/mafw.parquet"], {}, ["data/quarantine/mafw.parquet"]),
    "extract@reasoning": (["data/manifest/reasoning.parquet"], {}, ["data/quarantine/reasoning.parquet"]),
    "leakage": (["data/manifest"], {}, [_LEFT_OUT, _SETS, _LEAKAGE]),
    "sft": (
        [_LEFT_OUT, "data/manifest/reasoning.parquet", BASE],
        {"seed": 101, "sft": {"max_steps": 400}},
        ["models/policy/sft"],
    ),
    "distill": ([_LEFT_OUT, "data/manifest/reasoning.parquet"], {}, ["data/sentences.parquet"]),
    "train_erv": (["data/sentences.parquet", BASE], {"train_erv": {"max_steps": 400}}, ["models/verifier"]),
    "grpo@erv": (
        [_LEFT_OUT, _SETS, "models/policy/sft", "models/verifier"],
        {"roles.train": ["mafw"], "grpo": {"beta": 0.04}},
        ["models/policy/erv"],
    ),
    "evaluate@erv": (
        ["data/manifest", "models/policy/erv"],
        {},
        ["eval/erv/predictions.parquet", "eval/erv/metrics.json"],
    ),
    "register": (["eval", "models/policy/erv", "models/verifier"], {}, ["models/candidate"]),
}


class LineagePipeline:
    """A workspace on the servers of a stack, with a bucket and an experiment of its own."""

    def __init__(self, folder: Path, stack: Environment) -> None:
        self.folder = folder
        name = folder.name
        self.environment = dataclasses.replace(
            stack, workspace=folder, mlflow_experiment=name, dvc_bucket=f"erv-dvc-{name}"
        )
        self._store = open_store(self.environment)
        self._store.ensure_bucket(self.environment.dvc_bucket)
        (folder / "dvc.yaml").write_text(PIPELINE)
        shutil.copy(ROOT / "params.yaml", folder)
        uri = f"s3://{self.environment.raw_bucket}/{name}/base"
        self._store.write(b"model,dataset,clip_id\npolicy,reasoning,r1\n", f"{uri}/trained_on.csv")
        lock = pin("base", uri, self._store, cache=folder / ".erv/pin")
        (folder / BASE).parent.mkdir(parents=True)
        lock.save(folder / BASE)
        (folder / ".gitignore").write_text(".erv\ndata/manifest\nmodels\neval\n")
        author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "pipeline"]):
            subprocess.run(["git", *words], cwd=folder, check=True)

    def run(self, *train: str, policy: str = "first") -> None:
        """Writes what a run with these training clips leaves, and stores it; `policy` is its weights."""
        with contextlib.chdir(self.folder):
            _write_outputs(train, policy)
            lock: dict[str, Any] = {}
            for stage, (deps, params, outs) in STAGES.items():
                lock[stage] = {"cmd": "x", "deps": _items(deps), "outs": _items(outs)}
                if params:
                    lock[stage]["params"] = {"params.yaml": params}
                for out in outs:
                    self._push(Path(out))
                self._keep_run(lock[stage])
            text = yaml.safe_dump({"schema": "2.0", "stages": lock}, sort_keys=False)
            write_text(text, Path("dvc.lock"))

    def publish(self) -> PublishResult:
        """Publishes the candidate."""
        isolate(self.environment)
        with contextlib.chdir(self.folder):
            return publish(Path("models/candidate"), self.environment, load_settings(), by="test")

    def md5_of(self, path: str) -> str:
        """DVC's hash of an output."""
        with contextlib.chdir(self.folder):
            return content_digest(path)

    def _push(self, path: Path) -> None:
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            self._keep(file.read_bytes(), md5_of_file(file))
        if path.is_dir():
            files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
            entries = [{"md5": md5_of_file(files[name]), "relpath": name} for name in sorted(files)]
            self._keep(json.dumps(entries, sort_keys=True).encode(), content_digest(path))

    def _keep_run(self, entry: dict[str, Any]) -> None:
        """As `dvc push --run-cache` leaves what a run of DVC has made."""
        key = run_cache_key(entry)
        place = f"s3://{self.environment.dvc_bucket}/runs/{key[:2]}/{key}/{entry_hash(entry)}"
        self._store.write(yaml.safe_dump(entry).encode(), place)

    def _keep(self, content: bytes, md5: str) -> None:
        bucket = self.environment.dvc_bucket
        self._store.write(content, f"s3://{bucket}/files/md5/{md5[:2]}/{md5[2:]}")


def _items(paths: list[str]) -> list[dict[str, str]]:
    return [{"path": path, "md5": content_digest(path)} for path in paths]


def _write_outputs(train: tuple[str, ...], policy: str) -> None:
    """The clip t2 is excluded, t3 in quarantine; v1 and 7 are validation, 00000 to 00059 are tested."""
    tested = [f"{number:05d}" for number in range(60)]
    _manifest("mafw", train=[*train, "t2", "t3"], validation=["v1", "7"], test=tested)
    _manifest("reasoning", train=["r1", "r3"], validation=["r2"])
    bad = {"clip_id": "t3", "dataset": "mafw", "stage": "extract", "reason": "no sound", "sha256": None}
    for name, rows in {"mafw": [bad], "reasoning": []}.items():
        table = pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
        write_table(table, Path(f"data/quarantine/{name}.parquet"))
    write_exclusions([Excluded("mafw", "t2")], Path(_LEFT_OUT))
    twin = {"twin": "mafw/00001", "twin_use": "test", "twin_uri": "u", "alike": "same content"}
    record = {"action": "exclude", "found": [{"clip": "mafw/t2", **twin}]}
    write_document(record, Path(_LEAKAGE))
    rows_of_mafw = hash_of_rows(training_rows(read_table(Path("data/manifest/mafw.parquet"))))
    write_document({"training_sets": {"mafw": {"rows": rows_of_mafw}}}, Path(_SETS))
    said = [("reasoning", "r1", "train"), ("reasoning", "r2", "validation"), ("rollouts", "r2", "test")]
    rows = [
        {
            "sentence": f"s{number}",
            "labels": ["anger"],
            "source": source,
            "teacher": "t",
            "split": split,
            "clip_id": c,
        }
        for number, (source, c, split) in enumerate(said)
    ]
    write_table(pa.Table.from_pylist(rows, schema=SENTENCES), Path("data/sentences.parquet"))
    config = {"model_type": "humanomni", "weights": policy}
    for name in ("policy/sft", "policy/erv", "verifier"):
        write_text(json.dumps(config), Path(f"models/{name}/config.json"))
    panel = {"lexical": {"digest": "j", "worth": WORTH}}
    mine, base = predictions(50, 50), predictions(40, 20)
    evaluations = {"eval/erv": mine, ".erv/eval/erv": mine, ".erv/eval/r1_omni": base}
    for folder, answers in evaluations.items():
        write_evaluation(Path(folder), answers, judge={"digest": "j"}, judges=panel, decoding={"batch": 1})
    compared = Path(".erv/comparison.json")
    write_document(comparison_of(sft=base, r1_omni=base, erv=mine), compared)
    write_candidate(
        Path("models/candidate"),
        policy=Path("models/policy/erv"),
        verifier=Path("models/verifier"),
        evaluations=Path(".erv/eval"),
        comparison=compared,
        serving=SERVING,
        settings=load_settings().register_,
        seed=0,
    )


def _manifest(dataset: str, **splits: list[str]) -> None:
    rows = [
        ClipRow(c, dataset, 0, split, "anger", "anger", None, None, "video", "u", 1, "0" * 64, "a", "b", None)
        for split, clips in splits.items()
        for c in clips
    ]
    write_manifest(rows, Path(f"data/manifest/{dataset}.parquet"))
