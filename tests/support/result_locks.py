"""Lock entries as runs of a small pipeline leave them; their hashes follow from what decides them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import yaml

from erv.pipeline.ancestry import digest_of_files

DATASET = "mafw"
LORA = {"enabled": False, "rank": 16, "alpha": 32, "dropout": 0.0, "quantize": "none"}
# As entries keep them: whole sections nested, single keys by their dotted names.
PARAMETERS: dict[str, Any] = {
    "seed": 101,
    "ingest.fold": 1,
    "ingest.readers.mafw": {"reader": "mafw", "set": "single"},
    "sources.mafw": "s3://erv-raw/mafw",
    "runtime": {"device": "auto", "dtype": "float32", "threads": 1, "python": "3.11"},
    "extract": {
        "frames": 8,
        "size": 64,
        "geometry": "stretch",
        "sample_rate": 16000,
        "missing_audio": "quarantine",
        "short_folders": "repeat",
    },
    "policy": {"family": "humanomni", "prompt": "data/prompts/r1_omni.txt"},
    "sft": {"max_steps": 400, "lora": LORA},
    "grpo": {"beta": 0.02, "lora": LORA},
    "variants.erv": {"rewards": {"format": 1.0, "accuracy": 1.0, "explanation": 1.0}},
    "roles.train": ["mafw"],
    "roles": {"train": ["mafw"], "test": ["mafw"], "cold_start": "reasoning"},
    "evaluate": {"split": "test", "max_new_tokens": 96, "temperature": 0.0, "judges": [{"kind": "lexical"}]},
}
SOURCE = f"data/sources/{DATASET}.lock.json"
_BASE = "data/sources/base.lock.json"
# Stage -> what it reads, the parameters that it keeps, what it writes.
STAGES: dict[str, tuple[list[str], list[str], list[str]]] = {
    "ingest@mafw": (
        [SOURCE, "src/erv/ingest"],
        ["seed", "ingest.fold", "ingest.readers.mafw", "sources.mafw"],
        ["data/manifest/mafw.parquet"],
    ),
    "extract@mafw": (
        ["data/manifest/mafw.parquet", SOURCE, "src/erv/extract"],
        ["extract"],
        ["data/shards/mafw"],
    ),
    "sft": (
        [_BASE, "data/prompts/r1_omni.txt", "requirements/results-3.11.lock"],
        ["seed", "runtime", "policy", "sft"],
        ["models/policy/sft"],
    ),
    "train_erv": ([_BASE], ["seed"], ["models/verifier"]),
    "grpo@erv": (
        ["models/policy/sft", "models/verifier"],
        ["seed", "runtime", "policy", "roles.train", "grpo", "variants.erv"],
        ["models/policy/erv"],
    ),
    **{
        f"evaluate@{policy}": (
            [
                "data/manifest",
                "data/shards",
                f"models/policy/{policy}",
                "models/verifier",
                "requirements/results-3.11.lock",
            ],
            ["seed", "runtime", "policy", "roles", "evaluate"],
            [f"eval/{policy}/predictions.parquet", f"eval/{policy}/metrics.json"],
        )
        for policy in ("sft", "erv")
    },
    "report": (["eval"], ["seed"], ["report/comparison.json"]),
}


def locked(
    contents: Mapping[str, bytes] | None = None, files: Mapping[str, str] | None = None, **changed: Any
) -> dict[str, Any]:
    """The entries of a run.

    Args:
        contents: of some outputs, by path, so that their hashes are right.
        files: what other files that stages read say, by path.
        **changed: parameters that differ, dots as two underscores: `ingest__fold=2`.
    """
    parameters = PARAMETERS | {name.replace("__", "."): value for name, value in changed.items()}
    written: dict[str, str] = {}
    lock: dict[str, Any] = {}
    for stage, (deps, keys, outs) in STAGES.items():
        read = [{"path": path, "md5": _read(path, written, files or {})} for path in deps]
        params = {key: parameters[key] for key in keys}
        made = []
        for path in outs:
            folder = ".dir" if "." not in path else ""
            given = (contents or {}).get(path)
            md5 = _md5(yaml.safe_dump([stage, path, read, params]).encode() if given is None else given)
            written[path] = md5 + folder
            made.append({"path": path, "md5": md5 + folder})
        entry = {"cmd": f"python -m stages.{stage.partition('@')[0]}", "deps": read, "outs": made}
        lock[stage] = {**entry, "params": {"params.yaml": params}}
    return lock


def listing(md5: str) -> dict[str, str]:
    """The only file of a folder that a stage wrote."""
    return {"part.parquet": _md5(md5.encode())}


def text_of(lock: Mapping[str, Any]) -> str:
    """As DVC writes it."""
    return yaml.safe_dump({"schema": "2.0", "stages": dict(lock)}, sort_keys=False)


def _read(path: str, written: Mapping[str, str], files: Mapping[str, str]) -> str:
    if path in written:
        return written[path]
    inside: dict[str, str] = {}
    for name, md5 in written.items():
        if name.startswith(f"{path}/"):
            parts = listing(md5) if md5.endswith(".dir") else {"": md5}
            inside |= {f"{name}/{part}" if part else name: of_part for part, of_part in parts.items()}
    if inside:
        return digest_of_files(path, inside)
    return _md5(files.get(path, path).encode())


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
