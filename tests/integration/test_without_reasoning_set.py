"""Without a reasoning set: a policy that explains already, from the base source to the verifier."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pyarrow.parquet as pq
import pytest
import yaml

import stages.distill
import stages.rollouts
import stages.sft
import stages.train_erv
from erv.exclusions import write_exclusions
from erv.manifest import write_manifest
from erv.pinning import pin
from erv.sample.base_checkpoint import _write_encoder
from erv.settings import Settings, parse_settings
from tests.support.chat_server import Script, says
from tests.support.paths import ROOT
from tests.support.sft_policy import ROWS, SETTINGS, read_clips, train, write_base, write_clips
from tests.support.tiny_teacher import SENTENCES

pytestmark = [pytest.mark.integration, pytest.mark.long]

# What the policy of these tests writes.
LABELS = SENTENCES | {
    "The voice is loud.": ("anger",),
    "She seems angry.": ("anger",),
    "Her fist is clenched.": ("anger",),
    "The voice trembles.": ("fear",),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of MAFW, of which two are tested on, and a base source: a policy that explains, an encoder."""
    folder = tmp_path_factory.mktemp("unexplained")
    write_clips(folder)
    steps = replace_steps(150)
    train(write_base(folder / "base"), read_clips(folder), folder / "checkpoints", steps).save(
        folder / "tree/policy"
    )
    _write_encoder(list(LABELS) * 3, folder / "tree/encoder", seed=0)
    pin("base", str(folder / "tree"), None).save(folder / "base.lock.json")
    (folder / "reasoning").rename(folder / "mafw")
    rows = [
        replace(row, dataset="mafw", completion=None, split="test" if number >= 8 else "train")
        for number, row in enumerate(ROWS)
    ]
    write_manifest(rows, folder / "mafw.parquet")
    write_exclusions([], folder / "exclusions.json")
    return folder


def replace_steps(steps: int) -> Any:
    return SETTINGS.model_copy(update={"max_steps": steps, "learning_rate": 5e-3})


@pytest.fixture
def script() -> Iterator[Script]:
    """A teacher that knows the sentences above, and hears nothing else."""
    script = Script()
    script.answer = lambda sentence, *_: says(
        json.dumps({"labels": list(LABELS.get(sentence, ("neutral",)))})
    )
    yield script
    script.close()


def settings(**changes: Any) -> Settings:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["roles"]["cold_start"] = "mafw"
    params["sft"] |= {"max_steps": 0}
    params["rollouts"] |= {"per_clip": 4, "temperature": 0.7}
    params["distill"] |= {"validation_share": 0.3, "test_share": 0.3}
    params["train_erv"] |= {"max_steps": 4, "eval_steps": 2, "minimum_f1": 0.0, "minimum_labels": 0.0}
    for section, values in changes.items():
        params[section] |= values
    return parse_settings(params)


def sentences_of(place: Path, work: Path, given: Settings, loose: str | None = None) -> list[dict[str, Any]]:
    """Runs the stage distill; `loose` becomes the source's sentences.csv."""
    source = work / "source"
    source.mkdir()
    (source / "labels.txt").write_text("of MAFW")
    if loose is not None:
        (source / "sentences.csv").write_text(loose)
    pin("mafw", str(source), None).save(work / "mafw.lock.json")
    arguments = Namespace(
        manifest=place / "mafw.parquet",
        reasoning=work / "mafw.lock.json",
        base=place / "base.lock.json",
        rollouts=work / "rollouts",
        exclusions=place / "exclusions.json",
        sentences=work / "sentences.parquet",
        quarantine=work / "quarantine.parquet",
        summary=work / "sentences.json",
    )
    stages.distill.main(arguments, given, MagicMock())
    return pq.read_table(work / "sentences.parquet").to_pylist()


def train_verifier(place: Path, work: Path, given: Settings) -> dict[str, Any]:
    stages.train_erv.main(
        Namespace(
            sentences=work / "sentences.parquet",
            base=place / "base.lock.json",
            verifier=work / "verifier",
            curves=work / "curves/verifier.csv",
        ),
        given,
        MagicMock(),
    )
    return json.loads((work / "verifier/metrics.json").read_text())


def csv_of(labelled: bool) -> str:
    rows = [[text, ";".join(labels)][: 2 if labelled else 1] for text, labels in SENTENCES.items()]
    return "\n".join(
        ["sentence,labels" if labelled else "sentence", *('"' + '","'.join(row) + '"' for row in rows)]
    )


@pytest.mark.slow
def test_the_policys_own_explanations_teach_the_verifier(
    place: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    teacher = {"kind": "openai", "model": "m", "base_url": script.url, "api_key_env": None, "max_retries": 0}
    given = settings(rollouts={"policies": ["sft"]}, distill={"teachers": [teacher]})
    shared = {"manifest": place / "mafw.parquet", "shards": place / "mafw"}
    shared["exclusions"] = place / "exclusions.json"
    policy = tmp_path / "sft"
    stages.sft.main(
        Namespace(base=place / "base.lock.json", policy=policy, curves=tmp_path / "curves/sft.csv", **shared),
        given,
        MagicMock(),
    )
    rollouts = tmp_path / "rollouts/sft.parquet"
    stages.rollouts.main(
        Namespace(name="sft", policy=policy, rollouts=rollouts, **shared), given, MagicMock()
    )
    sampled = pq.read_table(rollouts).to_pylist()
    tested = {row.clip_id for row in ROWS[8:]}
    assert len(sampled) == 8 * 4
    assert not tested & {row["clip_id"] for row in sampled}

    found = sentences_of(place, tmp_path, given, loose=csv_of(labelled=False))
    assert {row["source"] for row in found} == {"rollouts", "sentences"}
    assert set(script.asked) == {row["sentence"] for row in found}
    spoken = {row["sentence"]: row["labels"] for row in found if row["source"] == "rollouts"}
    assert spoken["The voice trembles."] == ["fear"]
    assert train_verifier(place, tmp_path, given)["per_label"]
    assert (tmp_path / "verifier/model.safetensors").is_file()


@pytest.mark.slow
def test_labelled_sentences_of_ones_own_need_no_teacher_that_reads(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = settings()
    assert [teacher.kind for teacher in given.distill.teachers] == ["reference"]
    found = sentences_of(place, tmp_path, given, loose=csv_of(labelled=True))
    assert {row["sentence"]: tuple(row["labels"]) for row in found} == SENTENCES
    assert train_verifier(place, tmp_path, given)["per_label"]
