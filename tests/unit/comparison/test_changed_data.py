"""Which data differ between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erv.comparison.changed_data import changed_data, data_since
from erv.environment import Environment
from erv.tracking.rest import Run, RunData, RunInfo


def lock(*data_sets: str, prompt: str = "p", base: str = "b", **manifests: str) -> dict[str, Any]:
    """Lock entries of a run on data sets; the hash of a manifest is its data set's name by default."""
    found: dict[str, Any] = {
        f"ingest@{name}": {
            "deps": [{"path": f"data/sources/{name}.lock.json", "md5": manifests.get(name, name)}],
            "outs": [{"path": f"data/manifest/{name}.parquet", "md5": manifests.get(name, name)}],
        }
        for name in data_sets
    }
    manifest = ".".join(manifests.get(name, name) for name in data_sets)
    found["sft"] = {
        "deps": [
            {"path": "data/manifest", "md5": manifest},
            {"path": "data/sources/base.lock.json", "md5": base},
            {"path": "data/prompts/mine.txt", "md5": prompt},
            {"path": "src/erv/files.py", "md5": prompt},
        ],
        "outs": [{"path": "models/policy/sft", "md5": manifest + prompt + base}],
    }
    return found


def test_data_sets_are_named_and_what_no_stage_wrote() -> None:
    before = lock("mafw", "dfew")
    assert changed_data(before, before) == []
    assert changed_data(before, lock("mafw", "dfew", mafw="withdrawn")) == ["mafw"]
    assert changed_data(before, lock("mafw", "emer")) == ["dfew (gone)", "emer (new)"]
    assert changed_data(before, lock("mafw", "dfew", base="c")) == ["data/sources/base.lock.json"]
    assert changed_data(before, lock("mafw", "dfew", prompt="q")) == ["data/prompts/mine.txt"]


def test_what_can_t_be_read_is_said(tmp_path: Path) -> None:
    run = Run(RunInfo("0" * 32, "1", "before", "FINISHED", 0, 0, ""), RunData())
    away = Environment(tmp_path, mlflow_uri="http://127.0.0.1:9")
    assert data_since(run, away).startswith("data: not compared, ")
