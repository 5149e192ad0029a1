"""A pipeline with the stages and paths of the real one whose outputs take no time, published for real."""

from __future__ import annotations

import subprocess

from erv.pinning import pin
from erv.storage.store import open_store
from tests.integration.scratch import Scratch
from tests.support.tiny_bundle import write_models

NAME = "emotion-policy"
PIPELINE = """
stages:
  ingest:
    matrix: {dataset: [mafw, reasoning]}
    cmd: python work.py ingest ${item.dataset}
    deps: [work.py, "control/${item.dataset}.json"]
    outs: ["data/manifest/${item.dataset}.parquet"]
  extract:
    matrix: {dataset: [mafw, reasoning]}
    cmd: python work.py extract ${item.dataset}
    deps: [work.py, "data/manifest/${item.dataset}.parquet"]
    outs: ["data/quarantine/${item.dataset}.parquet"]
  leakage:
    cmd: python work.py leakage
    deps: [work.py, data/manifest]
    outs: [data/exclusions.json, data/training_sets.json]
  sft:
    cmd: python work.py sft
    deps: [work.py, data/exclusions.json, data/manifest/reasoning.parquet, data/sources/base.lock.json]
    params: [seed, sft]
    outs: [models/policy/sft]
  distill:
    cmd: python work.py distill
    deps: [work.py, data/exclusions.json, data/manifest/reasoning.parquet]
    outs: [data/sentences.parquet]
  train_erv:
    cmd: python work.py train_erv
    deps: [work.py, inputs/verifier, data/sentences.parquet, data/sources/base.lock.json]
    params: [train_erv]
    outs: [models/verifier]
  grpo:
    matrix: {variant: [erv]}
    cmd: python work.py grpo
    deps:
      - work.py
      - inputs/policy
      - data/exclusions.json
      - data/training_sets.json
      - models/policy/sft
      - models/verifier
    params: [seed, roles.train, grpo]
    outs: [models/policy/erv]
  evaluate:
    matrix: {policy: [erv]}
    cmd: python work.py evaluate
    deps: [work.py, data/manifest, models/policy/erv]
    outs: [eval/erv/predictions.parquet]
    metrics: [eval/erv/metrics.json]
  register:
    cmd: python work.py register
    deps: [work.py, eval, models/policy/erv, models/verifier]
    params: [register]
    outs: [models/candidate]
"""
WORK = """
import json, shutil, sys
from pathlib import Path
import pyarrow as pa
from erv.manifest import ClipRow, write_manifest, write_table

stage, *item = sys.argv[1:]

def manifest(name):
    return Path(f"data/manifest/{name}.parquet")

def ingest():
    rows = []
    for split, clips in json.loads(Path(f"control/{item[0]}.json").read_text()).items():
        for clip in clips:
            rows.append(ClipRow(clip, item[0], 0, split, "anger", "anger", None, None, "video", "s3://x/y", 1,
                                "0" * 64, "a", "b", None))
    write_manifest(rows, manifest(item[0]))

def extract():
    from erv.shards import QUARANTINE_SCHEMA
    row = {"clip_id": "t3", "dataset": item[0], "stage": "extract", "reason": "no sound", "sha256": None}
    rows = [row] if item[0] == "mafw" else []
    table = pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
    write_table(table, Path(f"data/quarantine/{item[0]}.parquet"))

def leakage():
    from erv.exclusions import Excluded, write_exclusions
    from erv.files import sha256_of, write_document
    twin = Excluded("mafw", "t2", "train", "same content as mafw/00001")
    write_exclusions([twin], Path("data/exclusions.json"))
    hashes = {"mafw": {"manifest": sha256_of(manifest("mafw"))}}
    write_document({"training_sets": hashes}, Path("data/training_sets.json"))

def sft():
    folder = Path("models/policy/sft")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")

def distill():
    from erv.distill.table import SCHEMA
    said = [("reasoning", "r1", "train"), ("reasoning", "r2", "validation"), ("rollouts", "r2", "test"),
            ("sentences", "", "train")]
    rows = [{"sentence": f"{clip} {n}", "labels": ["anger"], "source": source, "teacher": "x", "split": split,
             "clip_id": clip} for n, (source, clip, split) in enumerate(said)]
    write_table(pa.Table.from_pylist(rows, schema=SCHEMA), Path("data/sentences.parquet"))

def train_erv():
    shutil.copytree("inputs/verifier", "models/verifier", dirs_exist_ok=True)

def grpo():
    shutil.copytree("inputs/policy", "models/policy/erv", dirs_exist_ok=True)

def evaluate():
    from erv.evaluate.evaluate import write_predictions
    from tests.unit.register.test_register import WORTH, predictions
    Path("eval/erv").mkdir(parents=True, exist_ok=True)
    write_predictions(predictions(50, 50), Path("eval/erv/predictions.parquet"))
    panel = {"lexical": {"digest": "j", "worth": WORTH}}
    measured = {"judge": {"digest": "j"}, "judges": panel, "decoding": {"batch": 1}}
    Path("eval/erv/metrics.json").write_text(json.dumps(measured))

def register():
    from erv.register.register import write_candidate
    from erv.settings import load_settings
    from tests.unit.register.test_register import comparison_of, predictions
    base = predictions(40, 20)
    work = Path(".erv/comparison.json")
    work.write_text(json.dumps(comparison_of(sft=base, r1_omni=base, erv=predictions(50, 50))))
    serving = {"frames": 2, "size": 32, "geometry": "stretch", "sample_rate": 16000, "max_new_tokens": 8}
    models = {"policy": Path("models/policy/erv"), "verifier": Path("models/verifier")}
    write_candidate(Path("models/candidate"), **models,
                    evaluation=Path("eval/erv"), comparison=work, serving=serving,
                    settings=load_settings().register_)

globals()[stage]()
"""
MAFW = (
    '{"train": ["t1", "t2", "t3"], "validation": ["v1", "7"], "test": ['
    + ", ".join(f'"{n:05d}"' for n in range(60))
    + "]}"
)


def write_pipeline(scratch: Scratch) -> None:
    """Fills a scratch folder with the pipeline, its pinned base and its parameters, and commits it."""
    folder = scratch.folder
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "work.py").write_text(WORK)
    (folder / "control/mafw.json").write_text(MAFW)
    (folder / "control/reasoning.json").write_text('{"train": ["r1", "r3"], "validation": ["r2"]}')
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("[mafw, dfew]  ", "[mafw]  "))
    write_models(folder / "inputs")
    store = open_store(scratch.environment)
    uri = f"s3://{scratch.environment.raw_bucket}/{folder.name}/base"
    store.write(b"model,dataset,clip_id\npolicy,reasoning,r1\n", f"{uri}/trained_on.csv")
    lock = pin("base", uri, store, cache=folder / ".erv/pin")
    (folder / "data/sources").mkdir(parents=True)
    lock.save(folder / "data/sources/base.lock.json")
    (folder / ".gitignore").write_text(".erv\n")
    commit(scratch, "pipeline")


def commit(scratch: Scratch, message: str) -> str:
    """Commits what git doesn't ignore; returns the commit."""
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["add", "-A"], [*author, "commit", "-qm", message]):
        subprocess.run(["git", *words], cwd=scratch.folder, check=True)
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=scratch.folder, check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


def run_and_publish(scratch: Scratch) -> str:
    """Brings the pipeline up to date, stores its outputs and publishes the candidate; what was said."""
    scratch.python("-m", "dvc", "repro", "-q")
    scratch.python("-m", "dvc", "push", "-q")
    return scratch.erv("publish").stdout
