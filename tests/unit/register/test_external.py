"""Imported folders: which are refused, and that an imported version can be exported again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from erv.errors import RegistryError
from erv.export.export import export
from erv.files import sha256_of
from erv.register.external import write_external
from erv.register.fetched import FetchedVersion
from erv.register.gates import Verdict
from erv.register.record import version_record
from erv.register.register import Bundle
from tests.support.tiny_bundle import SERVING

LIMITS: dict[str, Any] = SERVING["limits"]  # type: ignore[assignment]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder as an export has it; nothing reads the weights that it lacks."""
    folder = tmp_path / "theirs"
    (folder / "verifier").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "humanomni"}))
    (folder / "verifier/config.json").write_text("{}")
    return folder


def imported(folder: Path, bundle: Path) -> Bundle:
    return write_external(folder, bundle, verifier=None, serving=SERVING)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"limits": {}}, "limits.min_seconds is missing"),
        ({"limits": {**LIMITS, "min_hertz": 1.0}}, "limits.min_hertz is unknown"),
        ({"limits": {**LIMITS, "min_fps": "5"}}, "limits.min_fps is '5', not a number"),
        ({"limits": {**LIMITS, "min_fps": math.nan}}, "limits.min_fps is nan, not a number"),
        ({"limits": {**LIMITS, "min_side": True}}, "limits.min_side is True, not a whole number"),
        ({"limits": [1.0]}, "limits is [1.0], not an object"),
        ({"frames": 2.5}, "frames is 2.5, not a whole number"),
        ({"geometry": None}, "geometry is None, not a text"),
    ],
)
def test_settings_that_every_batch_would_fail_on_are_refused(
    theirs: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    (theirs / "serving.json").write_text(json.dumps({**SERVING, **changed}))
    with pytest.raises(RegistryError) as refused:
        imported(theirs, tmp_path / "bundle")
    assert str(refused.value) == (
        f"{theirs / 'serving.json'}: {said}, so this erv did not export it; export the version again"
    )
    assert not (tmp_path / "bundle").exists()


def test_whole_numbers_and_what_older_exports_lack_are_taken(theirs: Path, tmp_path: Path) -> None:
    serving = {**SERVING, "limits": {**LIMITS, "max_seconds": 60}}
    (theirs / "serving.json").write_text(json.dumps(serving))
    usual = {**SERVING, "resize": "area"}
    found = write_external(theirs, tmp_path / "bundle", verifier=None, serving=usual)
    assert found.json("serving.json") == serving


def test_an_imported_version_can_be_exported_and_imported_again(theirs: Path, tmp_path: Path) -> None:
    first = imported(theirs, tmp_path / "bundle")
    record = {"model": "theirs", "bundle": first.hash, "stages": {}, "files": {}}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/lineage.json").write_text(json.dumps(record))
    version = FetchedVersion("theirs", "1", "a" * 64, first.hash, tmp_path / "model", first.folder, record)
    export(version, tmp_path / "exported")
    card = (tmp_path / "exported/README.md").read_text()
    assert "External: a policy of the family humanomni" in card
    assert "No gate of it was decided here" in card
    assert "judges" not in card
    assert "what made it is not recorded" in card
    again = imported(tmp_path / "exported", tmp_path / "again")
    assert again.json("external.json")["says"]["bundle"] == first.hash
    for part in ("policy", "verifier", "serving.json"):
        assert sha256_of(again.folder / part) == sha256_of(first.folder / part)


STAGES = {"sft": {"entry": "e", "cmd": "c", "deps": {"a.lock.json": "1"}, "outs": {}, "params": {}}}


def test_what_a_folder_claims_of_its_origin_is_kept_and_goes_on(theirs: Path, tmp_path: Path) -> None:
    """Only model, bundle and commit were kept; what made the version was lost on the way."""
    record = {"model": "theirs", "bundle": "b", "commit": "c", "dirty": False, "stages": STAGES, "files": {}}
    (theirs / "lineage.json").write_text(json.dumps(record))
    bundle = imported(theirs, tmp_path / "bundle")
    says = bundle.json("external.json")["says"]
    assert says == {key: value for key, value in record.items() if key != "files"}
    text = version_record(bundle, "ours", code="c" * 64, files={}, run_id="r", parent_run_id=None, origin={})
    mine = json.loads(text)
    assert (mine["stages"], mine["claims"]) == ({}, says)
    (theirs / "lineage.json").write_text(text)
    assert imported(theirs, tmp_path / "again").json("external.json")["says"]["claims"] == says


def nested(depth: int) -> dict[str, Any]:
    return {"claims": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"model": 1}, "model is not a text"),
        ({"dirty": "no"}, "dirty is not true or false"),
        ({"stages": ["sft"]}, "stages is not an object"),
        ({"stages": {"sft": {"outs": {}}}}, "deps of stage sft is not an object"),
        ({"claims": {"commit": []}}, "in claims, commit is not a text"),
        ({"claims": "all"}, "in claims, it is not an object"),
        (nested(30), "it is nested more than 20 deep"),
    ],
)
def test_a_record_that_erv_did_not_write_is_refused(
    theirs: Path, tmp_path: Path, record: dict[str, Any], said: str
) -> None:
    (theirs / "lineage.json").write_text(json.dumps(record))
    with pytest.raises(RegistryError) as refused:
        imported(theirs, tmp_path / "bundle")
    assert str(refused.value).startswith(f"{theirs / 'lineage.json'}: ")
    assert f"{said}, so erv did not write it; export the version again, or take" in str(refused.value)
    assert not (tmp_path / "bundle").exists()


def test_the_card_of_an_older_export_has_no_open_gates(theirs: Path, tmp_path: Path) -> None:
    """They looked as if this registry were still to decide them."""
    gate = Verdict("WAR", against="champion", minimum=-0.05).text()
    (theirs / "README.md").write_text(f"---\ntags: []\n---\n\n# theirs\n\n## Gates\n\n- {gate}\n")
    card = (imported(theirs, tmp_path / "bundle").folder / "card.md").read_text()
    assert card.startswith(
        "External: a policy of the family humanomni that this pipeline did not make. No gate"
    )
    assert "- not decided: WAR minus champion, needs more than -0.0500" in card
    assert "open" not in card
