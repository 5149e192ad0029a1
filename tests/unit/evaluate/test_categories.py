"""Emotions that MAFW has no name for: what is said of them, and how they are judged and counted."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

import stages.evaluate
from erv.errors import DataError, EvaluationError
from erv.evaluate.categories import categories, notes, noteworthy, require_pooled, unheard_by
from erv.evaluate.compare import compare
from erv.evaluate.evaluate import judge_completions, measure, read_by_panel
from erv.evaluate.judges.embedding import EmbeddingJudge
from erv.evaluate.judges.lexical import LexicalJudge
from erv.evaluate.judges.protocol import OUTSIDE
from erv.labels import LabelSpace
from erv.manifest import ClipRow, write_manifest
from erv.rewards import NO_SHAPING, explanation_reward
from erv.rewards.answers import verifier_name
from erv.rewards.coherence import CoherenceReward
from erv.rewards.known import unknown_emotions
from erv.settings import load_settings
from erv.shards import Clip, ShardWriter

SPACE = """\
name: {name}
labels:
  - {{id: 0, name: awe, synonyms: [awed]}}
  - {{id: 1, name: boredom, synonyms: [bored]}}
  - {{id: 2, name: joy, synonyms: [happy]}}
maps:
  mafw: {{{maps}}}
"""


@pytest.fixture(autouse=True)
def spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data/label_spaces"
    folder.mkdir(parents=True)
    (folder / "moods.yaml").write_text(SPACE.format(name="moods", maps="joy: happiness"))
    (folder / "odd.yaml").write_text(SPACE.format(name="odd", maps=""))
    (folder / "bare.yaml").write_text(SPACE.format(name="bare", maps="").partition("maps:")[0])
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(scope="module")
def judge() -> LexicalJudge:
    said = {"happiness": "a broad smile and a bright laugh", "anger": "a clenched fist and a loud shout"}
    texts = [(f"{text} number {i}", name) for name, text in said.items() for i in range(30)]
    return LexicalJudge([text for text, _ in texts], [name for _, name in texts])


def clip(number: int, label: str) -> ClipRow:
    return ClipRow(
        f"m{number}", "moods", 0, "test", label, label, None, None, "video", "", 0, "", "", "", None
    )  # fmt: skip


def test_what_is_known_of_the_demos_data_sets_is_nothing_to_say():
    assert noteworthy(categories(["mafw", "dfew"], ["reasoning", "mafw", "dfew"])) == {}


def test_ravdess_is_unseen():
    found = categories(["mafw", "ravdess"], ["reasoning", "mafw"])
    assert noteworthy(found) == {
        "ravdess": {"zero_shot": True, "untrained": (), "unheard": {}, "unpooled": ()}
    }
    assert notes(noteworthy(found), "ravdess") == [
        "ravdess is zero-shot: this run trained no policy on clips of it."
    ]
    assert notes(noteworthy(found), "mafw") == []
    assert notes(noteworthy(found), "overall") == notes(noteworthy(found), "ravdess")


def test_new_emotions_are_named(judge):
    found = categories(["mafw", "moods"], ["mafw"], [judge])["moods"]
    assert found.zero_shot
    assert found.untrained == found.unpooled == ("awe", "boredom")
    assert found.unheard == {"lexical": ("awe", "boredom")}
    assert [sentence.partition(",")[0] for sentence in found.said("moods")[1:]] == [
        "moods: no training set has awe",
        "moods: the judge lexical can't hear awe",
        "moods: the MAFW space has no name for awe",
    ]
    trained = categories(["moods"], ["moods"], [judge])["moods"]
    assert (trained.zero_shot, trained.untrained) == (False, ())
    assert trained.unheard == {"lexical": ("awe", "boredom")}


def test_each_judge_of_the_panel_is_asked_what_it_hears(judge):
    """The first one of the shipped panel knows every emotion, so nothing was said of the second."""

    class Encoder:
        """Tells nothing apart; it is not asked."""

        digest = "0"

        def tensors(self) -> dict[str, Any]:
            return {}

    every = EmbeddingJudge(Encoder())
    found = categories(["mafw", "moods"], ["mafw"], [every, judge])
    assert found["moods"].unheard == {"lexical": ("awe", "boredom")}
    assert unheard_by(found, "embedding") == {}
    assert unheard_by(found, "lexical")["moods"] == ["awe", "boredom"]
    read_back = json.loads(json.dumps(noteworthy(found)))
    said = [item for item in notes(read_back, "moods") if "can't hear" in item]
    assert said == [
        "moods: the judge lexical can't hear awe, boredom, so by it such clips count as wrong for EEA and"
        " FCR, and right answers to them for EPC, whatever their explanations say."
    ]


def test_what_can_not_be_pooled_or_judged_is_said_at_once():
    with pytest.raises(EvaluationError, match=r"^no emotion of odd has a name in the MAFW space"):
        categories(["odd"], ["mafw"])
    assert categories(["mafw", "odd"], ["mafw"])["odd"].unpooled == ("awe", "boredom", "joy")
    with pytest.raises(DataError, match=r"'bare' and 'mafw' have no map to each other; add one under `maps`"):
        categories(["mafw", "bare"], ["mafw"])


def test_they_are_judged_and_counted_in_their_own_space(judge):
    rows = [clip(0, "awe"), clip(1, "boredom"), clip(2, "joy")]
    smile = "<think>There is a broad smile and a bright laugh number 3</think>\n<answer>{}</answer>"
    said = {"m0": smile.format("awed"), "m1": smile.format("awe"), "m2": smile.format("happy")}
    predictions = judge_completions(rows, said, [judge])
    assert [row["predicted"] for row in predictions] == ["awe", "awe", "joy"]
    assert [row["judged"] for row in predictions] == ["joy", "joy", "joy"]
    measured = measure(predictions)
    assert measured["moods"]["WAR"] == pytest.approx(2 / 3)
    assert measured["overall"]["WAR"] == 1.0, "of the one clip that MAFW has a name for"
    compared = compare({"sft": predictions, "erv": predictions}, samples=50, confidence=0.95, seed=0)
    assert compared["clips"] == {"overall": 1, "moods": 3}
    nothing = judge.judge(["a broad smile and a bright laugh"], LabelSpace.load("odd"))
    assert nothing == [OUTSIDE], "an emotion that is not in the space"


def test_clips_that_can_not_be_pooled_are_refused_by_their_labels():
    require_pooled([clip(0, "awe"), clip(1, "joy")], "test")
    with pytest.raises(EvaluationError) as caught:
        require_pooled([clip(0, "boredom"), clip(1, "awe"), clip(2, "awe")], "test")
    assert str(caught.value) == (
        "no clip in the test split has an emotion with a name in the MAFW space, in which `overall` pools"
        " (moods has awe, boredom); name at least one under maps.mafw in its label space, or add a mapped"
        " data set to roles.test"
    )


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (["m0"], r"^no clip in the test split has .* \(moods has awe\)"),  # the clip of joy is in quarantine
        ([], r"^no clip in the test split of moods; change roles\.test"),
        (["m0", "m1"], "^generating$"),
    ],
)
def test_evaluate_refuses_them_before_it_generates(tmp_path, root, monkeypatch, shown, message):
    settings = load_settings(root / "params.yaml")
    settings = settings.model_copy(
        update={"roles": settings.roles.model_copy(update={"test": ("moods",), "train": ("mafw",)})}
    )
    rows = [clip(0, "awe"), clip(1, "joy")]
    write_manifest(rows, tmp_path / "manifests/moods.parquet")
    with ShardWriter(tmp_path / "shards/moods", clips_per_shard=4) as writer:
        for name in shown:
            frames, audio = np.zeros((2, 4, 4, 3), np.uint8), np.zeros(8, np.int16)
            writer.add(Clip(name, frames, audio, 16000))

    def generate(*_: object) -> None:
        raise EvaluationError("generating")

    monkeypatch.setattr("stages.evaluate._judges", lambda *_: ([], []))
    monkeypatch.setattr("stages.evaluate._generate", generate)
    monkeypatch.setattr("erv.policies.common.families.check_family", lambda *_: None)
    arguments = Namespace(policy=tmp_path, manifests=tmp_path / "manifests", shards=tmp_path / "shards")
    with pytest.raises(EvaluationError, match=message):
        stages.evaluate.main(arguments, settings, MagicMock())


def test_nothing_is_measured_where_no_clip_can_be_pooled(judge):
    predictions = judge_completions(
        [clip(0, "awe")], {"m0": "<think>A smile.</think><answer>awe</answer>"}, [judge]
    )
    measured = measure(predictions)
    compared = compare({"sft": predictions}, samples=50, confidence=0.95, seed=0)
    assert compared["policies"]["sft"]["overall"]["WAR"]["value"] is None
    assert (measured["overall"]["WAR"], measured["moods"]["WAR"]) == (None, 1.0)
    numbers = {name: value for name, value in measured["overall"].items() if value is not None}
    assert numbers == {"clips": 0, "malformed": 0, "outside": 0}
    panel = read_by_panel(predictions, [{"name": "lexical", "worth": {}}])
    assert panel["judges"]["lexical"]["outcomes"]["overall"] == {}
    assert set(panel["majority"]["overall"].values()) == {None}
    assert panel["unreadable"]["overall"] == 0


class Verifier:
    """Hears awe in sentences about the sky, and happiness in others."""

    labels = ("happiness", "awe")
    thresholds = (0.5, 0.5)

    def predict(self, sentences):
        return [[0.0, 1.0] if "sky" in sentence else [1.0, 0.0] for sentence in sentences]


def test_the_verifier_says_what_it_knows_and_reads_own_emotions():
    assert unknown_emotions(Verifier.labels, ["moods"]) == [
        "moods: the verifier knows awe, joy, but not boredom; completions for such clips get no explanation"
        " reward"
    ]
    assert unknown_emotions(Verifier.labels, ["moods"], ["explanation", "coherence"])[0].endswith(
        "such clips get no explanation or coherence reward"
    )
    assert unknown_emotions(("happiness", "awe", "boredom"), ["moods"]) == []
    assert verifier_name("happy", "moods", Verifier.labels) == "happiness"
    assert verifier_name("awed", "moods", Verifier.labels) == "awe"
    assert verifier_name("bored", "moods", Verifier.labels) is None
    assert verifier_name("happy", None, Verifier.labels) == "happiness"
    assert verifier_name("awe", "mafw", Verifier.labels) is None
    completion = "<think>Her eyes follow the wide sky above.</think>\n<answer>awe</answer>"
    truths = ["awe", "joy", "boredom"]
    earned = explanation_reward(Verifier())([completion] * 3, truths, dataset=["moods"] * 3)
    assert earned[0] > 0.0
    assert earned[1:] == [0.0, None]


@pytest.mark.parametrize("semantics", ["strict", "official"])
def test_a_wrong_answer_earns_nothing_where_the_right_one_can_not_be_scored(semantics):
    """TRL counts what can't be scored as 0: a coherent wrong answer would earn what a right one does."""
    answers = ["boredom", "joy" if semantics == "strict" else "happiness", "awe"]
    said = [f"<think>A broad smile under the sun.</think>\n<answer>{answer}</answer>" for answer in answers]
    reward = CoherenceReward(Verifier(), semantics=semantics, shaping=NO_SHAPING)
    space = "moods" if semantics == "strict" else "mafw"
    columns = {"completions": said, "dataset": [space] * 3}
    known = "joy" if semantics == "strict" else "happiness"
    assert reward(solution=[known] * 3, **columns)[1] == 1.0
    assert reward(solution=["boredom"] * 3, **columns) == [None] * 3
    assert [item.credits for item in reward.credited(solution=["boredom"] * 3, **columns)] == [()] * 3
