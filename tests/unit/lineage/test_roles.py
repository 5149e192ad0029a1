"""What lock entries say a version learned from, was tuned on and was tested on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from erv.distill.table import SCHEMA as SENTENCES
from erv.environment import Environment
from erv.errors import RegistryError
from erv.evaluate.evaluate import write_predictions
from erv.exclusions import Excluded, write_exclusions
from erv.files import content_digest
from erv.lineage.membership import Membership
from erv.lineage.published import Published, read_version
from erv.lineage.roles import PASSIVE, READERS, Answers, Base, Listed, Sentences, Use, parameter, uses_of
from erv.lineage.used import used_nodes
from erv.lineage.withdrawn import find_withdrawn
from erv.manifest import ClipRow, read_table, write_manifest, write_table
from erv.register.versions import EXTERNAL_TAG, PUBLISH_RUN_TAG
from erv.shards import QUARANTINE_SCHEMA
from erv.training_sets import hash_of_rows, training_rows
from tests.conftest import ROOT
from tests.unit.register.test_register import predictions


def entry(deps: dict[str, str], outs: dict[str, str], **params: Any) -> dict[str, Any]:
    def items(found: dict[str, str]) -> list[dict[str, str]]:
        return [{"path": path, "md5": md5} for path, md5 in found.items()]

    return {"cmd": "x", "deps": items(deps), "outs": items(outs), "params": {"params.yaml": params}}


def lock(**changed: Any) -> dict[str, dict[str, Any]]:
    """The entries of a version: reasoning teaches sft and verifier, mafw the policy."""
    base = {"data/sources/base.lock.json": "base"}
    entries = {
        "ingest@mafw": entry({}, {"data/manifest/mafw.parquet": "m1"}),
        "ingest@reasoning": entry({}, {"data/manifest/reasoning.parquet": "r1"}),
        "extract@mafw": entry({"data/manifest/mafw.parquet": "m1"}, {"data/quarantine/mafw.parquet": "q1"}),
        "leakage": entry({}, {"data/exclusions.json": "x1", "data/leakage.json": "l1"}),
        "sft": entry(
            {"data/manifest/reasoning.parquet": "r1", "data/exclusions.json": "x1", **base},
            {"models/policy/sft": "s.dir"},
            **{"sft.max_steps": 400},
        ),
        "distill": entry({"data/manifest/reasoning.parquet": "r1"}, {"data/sentences.parquet": "t1"}),
        "train_erv": entry(
            {"data/sentences.parquet": "t1", **base},
            {"models/verifier": "v.dir"},
            train_erv={"max_steps": 400},
        ),
        "grpo@erv": entry(
            {
                "data/exclusions.json": "x1",
                "data/training_sets.json": "h1",
                "models/policy/sft": "s.dir",
                "models/verifier": "v.dir",
            },
            {"models/policy/erv": "e.dir"},
            **{"roles.train": ["mafw"]},
        ),
        "grpo@r1_omni": entry({"models/policy/sft": "s.dir"}, {"models/policy/r1_omni": "o.dir"}),
        "evaluate@erv": entry(
            {"models/policy/erv": "e.dir", "models/verifier": "v.dir"}, {"eval/erv/predictions.parquet": "p1"}
        ),
        "evaluate@r1_omni": entry(
            {"models/policy/r1_omni": "o.dir", "models/verifier": "v.dir"},
            {"eval/r1_omni/predictions.parquet": "p2"},
        ),
        "register": entry(
            {"eval": "f.dir", "models/policy/erv": "e.dir", "models/verifier": "v.dir"},
            {"models/candidate": "c.dir"},
        ),
    }
    return {name: value for name, value in {**entries, **changed}.items() if value is not None}


def test_the_stages_of_a_version() -> None:
    uses, unknown, lost = uses_of(lock())
    path = "data/sources/base.lock.json"
    assert (unknown, lost) == ([], [])
    assert set(uses) == {
        Use("learned", "base", Base("base", "policy", path)),
        Use("learned", "base", Base("base", "encoder", path)),
        Use("learned", "sft", Listed("r1", "reasoning", "train", "x1", leakage="l1")),
        Use("tuned", "sft", Listed("r1", "reasoning", "validation", "x1", leakage="l1")),
        Use("learned", "train_erv", Sentences("t1", "train", "reasoning")),
        Use("tuned", "train_erv", Sentences("t1", "validation", "reasoning")),
        Use("tested", "train_erv", Sentences("t1", "test", "reasoning")),
        Use("learned", "grpo@erv", Listed("m1", "mafw", "train", "x1", "q1", "h1", "l1")),
        Use("tested", "evaluate@erv", Answers("p1")),
    }


def test_what_takes_no_step_learns_nothing() -> None:
    still = lock()
    still["sft"]["params"]["params.yaml"] = {"sft": {"max_steps": 0}}
    still["train_erv"]["params"]["params.yaml"] = {"train_erv.max_steps": 0}
    roles = {(use.role, use.stage) for use in uses_of(still).uses}
    assert {"sft"} & {stage for _, stage in roles} == set()
    assert ("learned", "train_erv") not in roles
    assert ("tested", "train_erv") in roles


def test_a_quarantine_of_another_manifest_does_not_count() -> None:
    other = entry({"data/manifest/mafw.parquet": "m0"}, {"data/quarantine/mafw.parquet": "q0"})
    told = uses_of(lock(**{"extract@mafw": other}))
    (members,) = [use.members for use in told.uses if use.stage == "grpo@erv"]
    assert isinstance(members, Listed)
    assert members.quarantine is None


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"evaluate@erv": None}, "no evaluation of its policy"),
        (
            {"merge": entry({}, {"models/policy/erv": "e.dir"}), "grpo@erv": None},
            "erv doesn't know what merge learns from",
        ),
        (
            {
                "arms@arm0": entry({"/models/theirs": "t.dir"}, {"models/policy/erv": "e.dir"}),
                "grpo@erv": None,
            },
            "arms@arm0 takes in /models/theirs, and what that learned from isn't recorded here",
        ),
        (
            dict.fromkeys(("sft", "grpo@erv", "train_erv", "distill")),
            "no stage of its dvc.lock wrote its models",
        ),
    ],
)
def test_what_is_not_recorded_is_said(changed: dict[str, Any], sentence: str) -> None:
    assert any(sentence in said for said in uses_of(lock(**changed)).unknown)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"register": None}, "its dvc.lock has no entry of register"),
        ({"ingest@mafw": None}, "grpo@erv learned from mafw, of which its dvc.lock has no manifest"),
        (
            {"sft": None},
            "grpo@erv: models/policy/sft read as s.dir, and no entry of dvc.lock says who wrote it",
        ),
        (
            {"sft": entry({}, {"models/policy/sft": "other.dir"}, **{"sft.max_steps": 400})},
            "grpo@erv: models/policy/sft read as s.dir, but sft wrote other.dir",
        ),
        (
            {"train_erv": entry({}, {"models/verifier": "other.dir"}, **{"train_erv.max_steps": 400})},
            "register: models/verifier read as v.dir, but train_erv wrote other.dir",
        ),
    ],
)
def test_what_its_entries_name_and_lack_is_lost(changed: dict[str, Any], sentence: str) -> None:
    written = ("data/manifest/*.parquet", "models/policy/*", "models/policy/sft", "models/verifier")
    assert sentence in uses_of(lock(**changed), written).lost


def test_an_evaluation_of_another_policy_does_not_count() -> None:
    """`evaluate@erv` ran before the policy was trained again."""
    other = entry({"models/policy/erv": "before.dir"}, {"eval/erv/predictions.parquet": "p0"})
    told = uses_of(lock(**{"evaluate@erv": other}))
    assert not [use for use in told.uses if use.stage == "evaluate@erv"]
    assert any("no evaluation of its policy" in sentence for sentence in told.unknown)


def test_who_wrote_something_else_taught_nothing() -> None:
    """An arm of an earlier run had the name of a variant of today."""
    arm = entry({"models/theirs": "t.dir"}, {"models/policy/erv": "theirs.dir"})
    assert uses_of(lock(**{"arms@erv": arm})) == uses_of(lock())


def test_every_stage_of_the_pipeline_is_known() -> None:
    stages = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert READERS.keys() | PASSIVE == stages
    assert not READERS.keys() & PASSIVE


def test_parameters_of_both_forms() -> None:
    assert parameter(entry({}, {}, **{"roles.train": ["mafw"]}), "roles.train") == ["mafw"]
    assert parameter(entry({}, {}, roles={"train": ["mafw"]}), "roles.train") == ["mafw"]
    assert parameter(entry({}, {}, sft={"max_steps": None}), "sft.max_steps") is None


# --- which clips those are


class Remote:
    """Files under their hashes, as in DVC's cache."""

    def __init__(self, folder: Path) -> None:
        self.environment = Environment(folder)
        self._cache = folder / ".dvc/cache/files/md5"

    def keep(self, path: Path) -> str:
        md5 = content_digest(path)
        target = self._cache / md5[:2] / md5[2:]
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        return md5


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path)


def row(clip: str, split: str, dataset: str = "mafw") -> ClipRow:
    return ClipRow(
        clip, dataset, 0, split, "anger", "anger", None, None, "video", "u", 1, "0" * 64, "a", "b", None
    )


TWIN = {"twin": "x", "twin_use": "test", "twin_uri": "x.mp4", "alike": "same content"}
RECORD = {"action": "exclude", "found": [{"clip": "mafw/t2", **TWIN}]}
OLD = {"dataset": "mafw", "clip_id": "t2", "split": "train", "because": "same content as x, said in the list"}


def version(
    remote: Remote,
    folder: Path,
    *,
    hashed: bool = True,
    by: str = "rows",
    excluded: dict[str, str] | None = None,
    recorded: dict[str, Any] = RECORD,
) -> Published:
    """A version whose tables exist: t1 to t3 are trained on, t2 is excluded and t3 in quarantine.

    The training sets have hashes by `rows`, or of the whole `manifest` as those of earlier versions.
    """
    file = folder / "file"
    write_manifest([row("t1", "train"), row("t2", "train"), row("t3", "train"), row("v", "validation")], file)
    whole = hashlib.sha256(file.read_bytes()).hexdigest()
    known = hash_of_rows(training_rows(read_table(file))) if by == "rows" else whole
    sha256 = known if hashed else "0" * 64
    manifest = remote.keep(file)
    write_manifest([row("a/b", "train", "reasoning"), row("c", "validation", "reasoning")], file)
    reasoning = remote.keep(file)
    if excluded is None:
        write_exclusions([Excluded("mafw", "t2")], file)
    else:
        file.write_text(json.dumps({"excluded": [excluded]}))
    exclusions = remote.keep(file)
    file.write_text(json.dumps(recorded))
    leakage = remote.keep(file)
    bad = {"clip_id": "t3", "dataset": "mafw", "stage": "extract", "reason": "no sound", "sha256": None}
    left = {"clip_id": "t9", "dataset": "mafw", "stage": "ingest", "reason": "no label", "sha256": None}
    write_table(pa.Table.from_pylist([bad, left], schema=QUARANTINE_SCHEMA), file)
    quarantine = remote.keep(file)
    file.write_text(json.dumps({"training_sets": {"mafw": {by: sha256}}}))
    hashes = remote.keep(file)
    said = [("reasoning", "a/b", "train"), ("rollouts", "c", "test"), ("sentences", "", "train")]
    sentences = [
        {"sentence": "s", "labels": [], "source": source, "teacher": "t", "split": split, "clip_id": clip}
        for source, clip, split in said
    ]
    write_table(pa.Table.from_pylist(sentences, schema=SENTENCES), file)
    table = remote.keep(file)
    write_predictions(predictions(1, 1, clips=3), file)
    answers = remote.keep(file)
    known = json.dumps(lock())
    for name, md5 in {
        "m1": manifest, "r1": reasoning, "x1": exclusions, "q1": quarantine, "h1": hashes, "t1": table,
        "p1": answers, "l1": leakage,
    }.items():  # fmt: skip
        known = known.replace(f'"{name}"', f'"{md5}"')
    return Published("m", "1", (), {}, json.loads(known))


@pytest.mark.parametrize(
    ("clip", "used", "left_out"),
    [
        (("mafw", "t1"), [("learned", "grpo@erv")], []),
        (("mafw", "t2"), [], ["excluded: same content as x (test, x.mp4)"]),
        (("mafw", "t3"), [], ["in quarantine: no sound"]),
        (("mafw", "v"), [], []),
        (("mafw", "00002"), [("tested", "evaluate@erv")], []),
        (("reasoning", "a/b"), [("learned", "sft"), ("learned", "train_erv")], []),
        (("reasoning", "c"), [("tuned", "sft"), ("tested", "train_erv")], []),
    ],
)
def test_roles_of_clips(
    remote: Remote, tmp_path: Path, clip: tuple[str, str], used: list[tuple[str, str]], left_out: list[str]
) -> None:
    (found,) = Membership(remote.environment, [version(remote, tmp_path)]).of({clip})
    assert [(item.role, item.stage) for item in found.used] == used
    assert all(item.clips == (clip,) for item in found.used)
    assert [item.because for item in found.left_out] == left_out


def reason(remote: Remote, version: Published) -> str:
    (found,) = Membership(remote.environment, [version]).of({("mafw", "t2")})
    (item,) = found.left_out
    return item.because


def test_reasons_in_a_list_of_before(remote: Remote, tmp_path: Path) -> None:
    old = version(remote, tmp_path, excluded=OLD)
    assert reason(remote, old) == "excluded: same content as x, said in the list"


def test_a_reason_that_no_record_tells(remote: Remote, tmp_path: Path) -> None:
    unknown = "excluded: the same as a clip of another split"
    assert reason(remote, version(remote, tmp_path, recorded={**RECORD, "found": []})) == unknown
    other = version(remote, tmp_path)
    outs = other.lock["leakage"]["outs"]
    outs[0]["md5"] = "another list"  # `leakage` ran again, and left out others
    assert reason(remote, other) == unknown


def test_names_of_clips(remote: Remote, tmp_path: Path) -> None:
    membership = Membership(remote.environment, [version(remote, tmp_path)])
    assert membership.matching("mafw/t1") == {("mafw", "t1")}
    assert membership.matching("a/b") == {("reasoning", "a/b")}
    assert membership.matching("reasoning/a/b") == {("reasoning", "a/b")}
    assert membership.matching("t9") == {("mafw", "t9")}  # left out by ingest, but listed
    assert membership.matching("t10") == set()


@pytest.mark.parametrize("by", ["rows", "manifest"])
def test_a_manifest_that_was_not_trained_on_gives_no_answer(remote: Remote, tmp_path: Path, by: str) -> None:
    trained = version(remote, tmp_path, by=by)
    (found,) = Membership(remote.environment, [trained]).of({("mafw", "t1")})
    assert [used.stage for used in found.used] == ["grpo@erv"]
    other = version(remote, tmp_path, by=by, hashed=False)
    (found,) = Membership(remote.environment, [other]).of({("mafw", "t1")})
    assert found.used == ()
    assert "is not the one that was trained on" in found.unread[0]


def test_a_base_that_names_no_clips_is_said(remote: Remote, tmp_path: Path) -> None:
    (found,) = Membership(remote.environment, [version(remote, tmp_path)]).of(set())
    assert any(sentence.startswith("base: data/sources/base.lock.json") for sentence in found.unknown)


def test_a_source_lock_that_can_not_be_read_now_makes_the_answer_incomplete(
    remote: Remote, tmp_path: Path
) -> None:
    published = dataclasses.replace(version(remote, tmp_path), tags={PUBLISH_RUN_TAG: "0" * 32})
    away = dataclasses.replace(remote.environment, mlflow_uri="http://127.0.0.1:9")
    (found,) = Membership(away, [published]).of(set())
    assert any("base.lock.json kept with run 000" in sentence for sentence in found.unread)
    assert not [sentence for sentence in found.unknown if sentence.startswith("base")]


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({EXTERNAL_TAG: "true", PUBLISH_RUN_TAG: "0" * 32}, "it is external"),
        ({}, "it was not published by erv"),
    ],
)
def test_a_version_from_elsewhere_is_listed_and_spoils_no_answer(
    remote: Remote, tmp_path: Path, tags: dict[str, str], why: str
) -> None:
    foreign = ModelVersion("theirs", "2", 0, tags=[ModelVersionTag(*item) for item in tags.items()])
    known = read_version(remote.environment, foreign, {"champion": "2"})
    sentence = f"what it learned from, as {why}"
    membership = Membership(remote.environment, [version(remote, tmp_path), known])
    found = find_withdrawn(["mafw/t1"], membership)
    assert found.exit_code == 3
    assert f"not recorded: {sentence}: theirs/2" in "\n".join(found.lines()).replace("\n    ", " ")
    assert find_withdrawn(["mafw/v"], membership).exit_code == 0
    _, node = used_nodes(membership.of({("mafw", "t1")}), {("mafw", "t1")})
    assert node.title == "theirs version 2 (champion)"
    assert (node.facts, node.links) == ([f"not recorded: {sentence}"], [])


def test_an_object_that_differs_is_refused(remote: Remote, tmp_path: Path) -> None:
    from erv.lineage.objects import Objects

    file = tmp_path / "file"
    file.write_text("content")
    md5 = remote.keep(file)
    (tmp_path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).write_text("other")
    with pytest.raises(RegistryError, match="not in DVC's cache here, and no object store is configured"):
        Objects(remote.environment).read(md5)
