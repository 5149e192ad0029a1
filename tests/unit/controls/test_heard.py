"""A clip whose emotion can only be heard is answered from sound, on the way from the shard to the answer."""

import csv
import json
from argparse import Namespace
from dataclasses import replace
from types import MappingProxyType
from unittest.mock import MagicMock

import numpy as np
import pyarrow.parquet as pq
import pytest

import stages.controls
from erv.controls.showing import showing
from erv.errors import DataError
from erv.evaluate.evaluate import write_predictions
from erv.manifest import write_manifest
from erv.pinning import pin
from erv.policies.common.arm import Arm, write_arm
from erv.policies.common.generate import generate_completions
from erv.prompts import DIRECT_BEGINNING, parse_completion
from erv.sample.sample import _judge_texts
from erv.settings import load_settings
from erv.settings.judges import LexicalJudge
from tests.support.heard import PAIR, train_to_hear, write_heard
from tests.support.paths import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*checkpoint.*:FutureWarning")


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heard")
    rows, shards = write_heard(folder)
    policy = train_to_hear(folder, rows, shards)
    return policy, shards["mafw"], [row for row in rows if row.split == "test"]


@pytest.fixture
def workspace(heard, tmp_path):
    """The arguments of the stage, with the inputs that they name."""
    policy, _, rows = heard
    policy.save(tmp_path / "policy")
    write_manifest(rows, tmp_path / "manifest" / "mafw.parquet")
    found = answers(heard)
    predictions = [
        {
            "dataset": "mafw",
            "clip_id": row.clip_id,
            "split": "test",
            "label": row.label,
            "completion": f"<answer>{found[row.clip_id]}</answer>",
            "predicted": found[row.clip_id],
            "judged": None,
            "sentences": 0,
            "sha256": row.sha256,
            "verdicts": [{"judge": "lexical", "outcome": "silent", "emotion": None}],
        }
        for row in rows
    ]
    write_predictions(predictions, tmp_path / "eval" / "predictions.parquet")
    (tmp_path / "judge").mkdir()
    with (tmp_path / "judge" / "texts.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *_judge_texts(20, 0)])
    pin("judge", str(tmp_path / "judge"), None).save(tmp_path / "judge.lock.json")
    pin("base", str(tmp_path / "policy"), None).save(tmp_path / "base.lock.json")  # no judge here needs it
    return Namespace(
        name="erv",
        policy=tmp_path / "policy",
        manifests=tmp_path / "manifest",
        judge=tmp_path / "judge.lock.json",
        base=tmp_path / "base.lock.json",
        predictions=tmp_path / "eval" / "predictions.parquet",
        answers=tmp_path / "eval" / "controls.parquet",
        metrics=tmp_path / "eval" / "controls.json",
    )


def answers(heard, control=None, get=None):
    """Answers by clip, as the stages get them."""
    policy, reader, rows = heard
    shown = showing(control, rows, reader.silent, 0) if control else None
    clips = shown.clips(reader.get) if shown else (reader.get(row.clip_id) for row in rows)
    options = {"batch_size": 5, "max_new_tokens": 40, "temperature": 0.0, "seed": 0}
    video = shown.video if shown else True
    completions = generate_completions(policy, get(clips) if get else clips, video=video, **options)
    return {name: parse_completion(text).answer for name, text in completions.items()}


def right(heard, found):
    return np.mean([found[row.clip_id] == row.label for row in heard[2]])


def pairs_alike(found):
    """The share of pairs, the same pictures with two voices, that got the same answer twice."""
    first, second = ([found[name] for name in sorted(found) if name.endswith(end)] for end in PAIR)
    return np.mean([one == other for one, other in zip(first, second, strict=True)])


@pytest.mark.slow
def test_only_the_voice_tells_the_clips_of_a_pair_apart(heard):
    _, reader, rows = heard
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        first, second = reader.get(one.clip_id), reader.get(other.clip_id)
        np.testing.assert_array_equal(first.frames, second.frames)
        assert not np.array_equal(first.audio, second.audio)
        assert (one.label, other.label) == PAIR


@pytest.mark.slow
def test_it_is_answered_from_sound(heard):
    found = answers(heard)
    assert right(heard, found) >= 0.9
    assert pairs_alike(found) <= 0.1
    assert right(heard, answers(heard, "sound_only")) >= 0.75, "the frames say nothing here"


@pytest.mark.parametrize("control", ["video_only", "silenced"])
def test_without_the_sound_it_is_not(heard, control):
    found = answers(heard, control)
    assert pairs_alike(found) == 1.0, "what differs is not there any more"
    assert right(heard, found) <= 0.5


def test_with_the_sound_of_another_clip_the_answer_is_that_one(heard):
    _, reader, rows = heard
    shown = showing("shuffled", rows, reader.silent, 0)
    own, found = answers(heard), answers(heard, "shuffled")
    assert [found[row.clip_id] for row in shown.rows] == [own[name] for name in shown.shown]


def no_log_mel(monkeypatch, policy):
    prepare = policy.processor.prepare_clip

    def lossy(*clip):
        return {name: value for name, value in prepare(*clip).items() if name != "input_features"}

    monkeypatch.setattr(policy.processor, "prepare_clip", lossy)


def no_features(monkeypatch, policy):
    encode = policy.model.encode_clips

    def lossy(*prepared, **named):
        return {name: value for name, value in encode(*prepared, **named).items() if name != "audio_features"}

    monkeypatch.setattr(policy.model, "encode_clips", lossy)


@pytest.mark.parametrize("lose", [no_log_mel, no_features])
def test_sound_that_is_lost_before_the_model_is_not_taken_for_silence(heard, monkeypatch, lose):
    lose(monkeypatch, heard[0])
    with pytest.raises(ValueError, match="audio placeholders, but audio_features are missing"):
        answers(heard)


def test_sound_that_is_lost_in_a_shard_is_not_taken_for_silence(heard):
    def lossy(clips):
        return (replace(clip, audio=clip.audio[:0]) for clip in clips)

    with pytest.raises(DataError, match="is marked as one with sound, but has 0 samples"):
        answers(heard, get=lossy)


def measured(heard, workspace, evaluate=MappingProxyType({}), **controls):
    """What the stage writes, with the judge that needs no checkpoint."""
    settings = load_settings(ROOT / "params.yaml")
    settings = settings.model_copy(
        update={
            "roles": settings.roles.model_copy(update={"test": ("mafw",)}),
            "report": settings.report.model_copy(update={"bootstrap_samples": 200}),
            "evaluate": settings.evaluate.model_copy(
                update={"judges": (LexicalJudge(kind="lexical"),), **evaluate}
            ),
            "controls": settings.controls.model_copy(update=controls),
        }
    )
    workspace.shards = heard[1]._folder.parent
    stages.controls.main(workspace, settings, MagicMock())
    return settings, json.loads(workspace.metrics.read_text())["controls"]


def test_a_policy_that_does_not_explain_has_no_figures_about_explanations(heard, workspace):
    write_arm(Arm(thinks=False), workspace.policy)
    _, found = measured(heard, workspace, kinds=("silenced",))
    for part in ("metrics", "plain", "difference"):
        assert set(found["silenced"][part]["overall"]) == {"WAR", "UAR"}, part
    completions = {row["completion"] for row in pq.read_table(workspace.answers).to_pylist()}
    assert all(text.startswith(DIRECT_BEGINNING) for text in completions)


def test_sampled_answers_depend_on_no_batch(heard, workspace):
    """A control draws with the numbers of the evaluation, so that what differs is due to the control."""
    said = {}
    for size, temperature in ((1, 3.0), (5, 3.0), (5, 0.0)):
        chosen = {"batch_size": size, "temperature": temperature, "max_new_tokens": 20}
        measured(heard, workspace, chosen, kinds=("silenced",))
        rows = pq.read_table(workspace.answers).to_pylist()
        said[size, temperature] = {row["clip_id"]: row["completion"] for row in rows}
    assert said[1, 3.0] == said[5, 3.0] != said[5, 0.0]
    # Pairs sound alike here, but each clip has its own numbers.
    assert len(set(said[5, 3.0].values())) == len(heard[2])


def test_the_stage_measures_each_control(heard, workspace):
    settings, found = measured(heard, workspace)
    assert list(found) == sorted(settings.controls.kinds)
    war = {name: item["metrics"]["mafw"]["WAR"]["value"] for name, item in found.items()}
    assert war["sound_only"] >= 0.75
    assert max(war["video_only"], war["silenced"]) <= 0.5
    for name in ("video_only", "silenced"):
        assert found[name]["plain"]["mafw"]["WAR"]["value"] >= 0.9
        assert found[name]["difference"]["mafw"]["WAR"]["high"] < 0
    shuffled = found["shuffled"]
    low, high = (shuffled["metrics"]["mafw"]["WAR"][end] for end in ("low", "high"))
    assert low <= shuffled["chance"]["mafw"] <= high
    table = pq.read_table(workspace.answers).to_pylist()
    assert len(table) == 4 * len(heard[2])
    assert all((row["shown"] == row["clip_id"]) == (row["control"] != "shuffled") for row in table)
