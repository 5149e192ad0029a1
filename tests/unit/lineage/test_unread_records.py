"""Records that can't be read are not taken for records that say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import md5_of_file
from erv.lineage.published import Published
from erv.lineage.stages import StageTrees
from erv.lineage.trace import Provenance

MANIFEST, LOST = "a" * 32, "b" * 32
WHY = "the pipeline files kept with run 1 can't be read: timed out"


def ingest(dataset: str, md5: str) -> dict[str, Any]:
    return {
        f"ingest@{dataset}": {"cmd": "x", "outs": [{"path": f"data/manifest/{dataset}.parquet", "md5": md5}]}
    }


def provenance(folder: Path, *versions: Published) -> Provenance:
    found = Provenance(Environment(folder), None)
    found._versions.__dict__["published"] = list(versions)
    return found


@pytest.mark.parametrize("target", ["mafw/1", "c" * 32])
def test_what_is_not_found_may_be_in_a_version_whose_records_are_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError) as error:
        provenance(tmp_path, Published("m", "1", (), {}, problem=WHY)).trace(target)
    assert f"it may be in records that can't be read: m version 1: {WHY}" in str(error.value)
    with pytest.raises(RegistryError) as error:
        provenance(tmp_path).trace(target)
    assert "can't be read" not in str(error.value)


def test_a_manifest_that_is_lost_may_hold_a_clip_that_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError, match=f"can't be read: manifest of mafw: md5 {LOST}"):
        provenance(tmp_path, Published("m", "1", (), {}, ingest("mafw", LOST))).trace("mafw/1")


def test_a_clip_that_is_found_may_be_in_a_lost_manifest_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "manifest.parquet"
    pq.write_table(pa.table({"clip_id": ["1"], "split": ["train"]}), table)
    md5 = md5_of_file(table)
    cached = tmp_path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.parent.mkdir(parents=True)
    table.rename(cached)
    lock = {**ingest("dfew", md5), **ingest("mafw", LOST)}
    node = provenance(tmp_path, Published("m", "1", (), {}, lock)).trace("dfew/1")
    assert node.values == {"clips": ["dfew/1"]}
    (link,) = node.links
    assert (link.what, link.ok) == ("records", None)
    assert link.detail.startswith(f"manifest of mafw: md5 {LOST}")


def test_versions_that_may_be_made_from_an_output_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lock = {"schema": "2.0", "stages": ingest("mafw", MANIFEST)}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    unread = Published("m", "2", (), {}, problem=WHY)
    node = provenance(tmp_path, Published("m", "1", (), {}, ingest("mafw", MANIFEST)), unread).trace(MANIFEST)
    assert "in m version 1" in node.facts
    assert f"may be in m version 2 too: {WHY}" in node.facts


def test_an_outage_of_mlflow_is_not_called_a_stage_without_a_run(tmp_path: Path) -> None:
    away = Environment(tmp_path, mlflow_uri="http://127.0.0.1:9")
    facts = StageTrees(away).node(ingest("mafw", MANIFEST), "ingest@mafw", None, set()).facts
    assert "no MLflow run on this server" not in facts
    assert any(fact.startswith("its MLflow runs can't be looked up now: ") for fact in facts)
