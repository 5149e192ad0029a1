"""How long `erv lineage --withdrawn` takes over many versions of a full-size corpus.

    python benchmarks/lineage.py             # with a stack up; figures in benchmarks/lineage.json
    python benchmarks/lineage.py --versions 10 --withdrawn 100

Registers versions on the workspace's real MLflow server, with lock entries as `erv publish` keeps them, and
puts their tables into a bucket of its own in the workspace's object store. Each version has an evaluation of
its own; every ten share their manifests. Three data sets have 26,417 clips together. The time is that of the
whole command in a process of its own, the start of Python and the import of MLflow included. Model, runs and
objects are removed at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

import pyarrow as pa
import yaml

from benchmarks.workspace import demanded, positive, stack_demanded
from erv.environment import Environment, isolate, load_environment
from erv.evaluate.evaluate import SCHEMA as PREDICTIONS
from erv.manifest import ClipRow, write_manifest, write_table
from erv.shards import QUARANTINE_SCHEMA
from erv.storage.store import Store, open_store

RESULTS = Path(__file__).with_suffix(".json")
SIZES = {"mafw": 9172, "dfew": 11697, "reasoning": 5548}
MODEL = "bench-lineage"
SHARED = 10  # versions with the same manifests


class Tables:
    """Writes tables into the bucket under their hashes; returns these."""

    def __init__(self, store: Store, bucket: str, folder: Path) -> None:
        self._store, self._bucket, self._file = store, bucket, folder / "table"
        self._manifests: dict[tuple[str, int], tuple[str, str]] = {}

    def keep(self) -> str:
        """Stores what was written last; returns its MD5."""
        content = self._file.read_bytes()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        self._store.write(content, f"s3://{self._bucket}/files/md5/{md5[:2]}/{md5[2:]}")
        return md5

    def manifest(self, dataset: str, changed: int) -> tuple[str, str]:
        """MD5 and SHA-256 of a manifest; the last clip's name has `changed` in it, so that it differs."""
        if (dataset, changed) not in self._manifests:
            self._manifests[dataset, changed] = self._manifest(dataset, changed)
        return self._manifests[dataset, changed]

    def _manifest(self, dataset: str, changed: int) -> tuple[str, str]:
        count = SIZES[dataset]
        names = [f"{number:05d}" for number in range(count - 1)] + [f"last-{changed}"]
        splits = ["test" if number % 5 == 0 else "train" for number in range(count)]
        fixed = ("anger", "anger", None, None, "video", "s3://b/x.mp4", 1, "0" * 64, "list:1", "list:1", None)
        rows = (ClipRow(n, dataset, 1, split, *fixed) for n, split in zip(names, splits, strict=True))
        write_manifest(rows, self._file)
        return self.keep(), hashlib.sha256(self._file.read_bytes()).hexdigest()

    def predictions(self, version: int) -> str:
        """MD5 of a version's own predictions."""
        rows = [
            {"dataset": name, "clip_id": f"{number:05d}", "split": "test", "label": "anger",
             "completion": f"<think>{version}</think>\n<answer>anger</answer>", "predicted": "anger",
             "judged": "anger", "verdicts": [], "sentences": 1}
            for name in ("mafw", "dfew")
            for number in range(0, SIZES[name] - 1, 5)
        ]  # fmt: skip
        write_table(pa.Table.from_pylist(rows, schema=PREDICTIONS), self._file)
        return self.keep()

    def quarantine(self, dataset: str) -> str:
        """MD5 of a quarantine with one clip."""
        bad = {
            "clip_id": "00007",
            "dataset": dataset,
            "stage": "extract",
            "reason": "no sound",
            "sha256": None,
        }
        write_table(pa.Table.from_pylist([bad], schema=QUARANTINE_SCHEMA), self._file)
        return self.keep()

    def document(self, content: Mapping[str, Any]) -> str:
        """MD5 of a JSON file."""
        self._file.write_text(json.dumps(content))
        return self.keep()


def entries(tables: Tables, version: int) -> dict[str, Any]:
    """The lock entries of a version."""
    manifests = {name: tables.manifest(name, version // SHARED) for name in SIZES}
    quarantines = {name: tables.quarantine(name) for name in SIZES}
    excluded = {"dataset": "mafw", "clip_id": "00001", "split": "train", "because": "same content"}
    exclusions = tables.document({"excluded": [excluded]})
    hashes = tables.document({"training_sets": {n: {"manifest": manifests[n][1]} for n in ("mafw", "dfew")}})
    digest = hashlib.md5(str(version).encode(), usedforsecurity=False).hexdigest()
    policy, sft = {"models/policy/erv": f"{digest}.dir"}, {"models/policy/sft": f"{digest[::-1]}.dir"}
    stages = {}
    for name in SIZES:
        manifest = {f"data/manifest/{name}.parquet": manifests[name][0]}
        stages[f"ingest@{name}"] = _entry({}, manifest)
        stages[f"extract@{name}"] = _entry(manifest, {f"data/quarantine/{name}.parquet": quarantines[name]})
    reasoning = {"data/manifest/reasoning.parquet": manifests["reasoning"][0]}
    left_out, trained_on = {"data/exclusions.json": exclusions}, {"data/training_sets.json": hashes}
    read = {f"data/manifest/{name}.parquet": md5 for name, (md5, _) in manifests.items()}
    stages["leakage"] = _entry(read, {**left_out, **trained_on})
    stages["sft"] = _entry({**reasoning, **left_out}, sft, **{"sft.max_steps": 400})
    stages["grpo@erv"] = _entry(
        {**left_out, **trained_on, **sft}, policy, **{"roles.train": ["mafw", "dfew"]}
    )
    answers = {"eval/erv/predictions.parquet": tables.predictions(version)}
    stages["evaluate@erv"] = _entry(policy, answers)
    stages["register"] = _entry({**policy, **answers}, {"models/candidate": f"{digest}.dir"})
    return stages


def _entry(deps: Mapping[str, str], outs: Mapping[str, str], **params: Any) -> dict[str, Any]:
    def items(found: Mapping[str, str]) -> list[dict[str, str]]:
        return [{"path": path, "md5": md5} for path, md5 in found.items()]

    return {"cmd": "x", "deps": items(deps), "params": {"params.yaml": params}, "outs": items(outs)}


def publish(environment: Environment, count: int, runs: list[str]) -> None:
    """Registers the versions; adds each run to `runs` as it is made."""
    from erv.register.versions import HASH_TAG, PUBLISH_RUN_TAG
    from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER, client_of

    client = client_of(environment)
    client.create_registered_model(MODEL)
    found = client.get_experiment_by_name(environment.mlflow_experiment)
    experiment = found.experiment_id if found else client.create_experiment(environment.mlflow_experiment)
    store = open_store(environment)
    store.ensure_bucket(environment.dvc_bucket)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = Tables(store, environment.dvc_bucket, folder)
        for version in range(count):
            run_id = client.create_run(experiment, run_name="bench-lineage").info.run_id
            runs.append(run_id)
            lock = folder / "dvc.lock"
            lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": entries(tables, version)}))
            client.log_artifact(run_id, str(lock), LOCK_ARTIFACT_FOLDER)
            tags = {HASH_TAG: run_id, PUBLISH_RUN_TAG: run_id}
            client.create_model_version(MODEL, f"runs:/{run_id}", run_id, tags=tags)
            print(f"\rversion {version + 1} of {count}", end="", flush=True)
    print()


def clean(environment: Environment, runs: Sequence[str]) -> None:
    """Removes the model, the runs and the bucket's content."""
    from erv.tracking.lock_entries import client_of

    client = client_of(environment)
    client.delete_registered_model(MODEL)
    for run_id in runs:
        client.delete_run(run_id)
    store = open_store(environment)
    for item in store.list(f"s3://{environment.dvc_bucket}"):
        store.delete(item.uri)


def measured(environment: Environment, ids: Sequence[str]) -> dict[str, float]:
    """Seconds of wall time and CPU of the command, how busy the machine was before, and what it said."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.txt"
        listed.write_text("\n".join(ids) + "\n")
        before, started = _cpu(), time.monotonic()
        result = subprocess.run(
            [
                sys.executable,
                "-c",
                "from erv.cli import main; main()",
                "lineage",
                "--withdrawn",
                str(listed),
                "--json",
            ],
            cwd=folder,
            env={**os.environ, **environment.variables()},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds, cpu = time.monotonic() - started, _cpu() - before
    if result.returncode not in (3, 4):  # 4: the tables of other models are in another bucket
        sys.exit(f"expected exit code 3, got {result.returncode}:\n{result.stderr[-2000:]}")
    found = json.loads(result.stdout)
    ours = [item for item in found["versions"] if item["model"] == MODEL]
    if unread := [sentence for item in ours for sentence in item["unread"]]:
        sys.exit(f"a version can't be read: {unread[0]}")
    affected = sum(bool(item["used"]) for item in ours)
    return {
        "clips": len(ids),
        "versions": len(ours),
        "affected": affected,
        "seconds": round(seconds, 1),
        "cpu": round(cpu, 1),
        "load": round(load, 1),
    }


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Registers, measures with a few and with all clips, prints and writes the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", type=positive, default=50, help="versions (%(default)s)")
    parser.add_argument(
        "--withdrawn", type=positive, default=100, help="clips in the short list (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the result goes (%(default)s)")
    options = parser.parse_args()
    demanded(Path(), "params.yaml")
    stack_demanded(Path())
    environment = dataclasses.replace(load_environment(), dvc_bucket="erv-bench-lineage")
    isolate(environment)
    everything = [f"{name}/{number:05d}" for name, count in SIZES.items() for number in range(count - 1)]
    step = max(1, len(everything) // options.withdrawn)
    runs: list[str] = []
    try:
        publish(environment, options.versions, runs)
        lists = [measured(environment, ids) for ids in (everything[::step][: options.withdrawn], everything)]
    finally:
        clean(environment, runs)
    result = {
        "command": "python benchmarks/lineage.py",
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "clips": sum(SIZES.values()),
        "lists": lists,
    }
    for one in lists:
        print(f"{one['clips']} withdrawn, {one['affected']} of {one['versions']} versions affected:"
              f" {one['seconds']} s, {one['cpu']} CPU s, at a load of {one['load']}")  # fmt: skip
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
