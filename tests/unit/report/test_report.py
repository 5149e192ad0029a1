import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
import torch

from erv.errors import DataError, EvaluationError
from erv.evaluate.compare import table_notes
from erv.evaluate.evaluate import measure, write_json, write_predictions
from erv.grounding.cues import read_cues
from erv.labels import LabelSpace
from erv.manifest import write_table
from erv.pinning import pin
from erv.plots.tables import write_class_balance, write_durations, write_quarantine
from erv.report.datasets import DatasetEvidence, Missed, read_datasets
from erv.report.examples import choose_examples, cue_precision, sound
from erv.report.report import (
    Evidence,
    build_comparison,
    load_evaluations,
    render_report,
)
from erv.sample.wordings import find_cues
from erv.settings import ReportSettings
from erv.shards import Clip
from erv.train_erv.behaviour import ABILITIES
from erv.train_erv.scores import classification_report
from erv.validate.probing import Probe
from tests.support.verdicts import judge, rows_of

SETTINGS = ReportSettings(bootstrap_samples=100, confidence=0.95, examples=12)
JUDGE = {
    "name": "lexical",
    "architecture": "bag of words",
    "digest": "0" * 64,
    "trained_on": 8,
    "held_out": 2,
    "held_out_accuracy": 1.0,
    "held_out_low": 0.342,
    "held_out_high": 1.0,
    "held_out_recall": 0.5,
    "held_out_recall_low": 0.3,
    "held_out_recall_high": 0.7,
    "held_out_emotions": {"anger": {"texts": 2, "right": 1}, "fear": {"texts": 0, "right": 0}},
}
DECODING = {"max_new_tokens": 96, "temperature": 0.0, "split": "test"}
MEASURED = {"judge": JUDGE, "decoding": DECODING}
NAMES = LabelSpace.load("mafw").names


MAFW = DatasetEvidence(
    fold=2,
    splits={"train": 8, "validation": 0, "test": 3},
    balance=[
        {"fold": fold, "split": split, "label": label, "clips": clips}
        for fold in ("1", "2")
        for split, label, clips in (
            ("train", "anger", "5"),
            ("train", "fear", "3"),
            ("test", "anger", "2"),
            ("test", "fear", "1"),
        )
    ],
    durations=[{"seconds": "1.5", "clips": "7"}, {"seconds": "2.0", "clips": "4"}],
    quarantine=[{"stage": "extract", "reason": "no audio <stream>", "clips": "2"}],
    warnings=["listed_but_absent: 3 of 14 listed clips are not in the <source>; expected all of them there"],
    missed=[Missed("not_black", "tolerated", "a frame with a mean luma of at least 8 of 255", 1)],
)


SENTENCES = {
    "sentences": 90,
    "texts": 60,
    "splits": {"train": 40, "validation": 10, "test": 10},
    "sources": {"reasoning": 80, "rollouts": 10},
    "teachers": {"openai:<m>": {"labelled": 90, "refused": 3}, "local:t": {"labelled": 93, "refused": 0}},
    "quarantined": {"malformed": 3},
    "agreement": [{"teachers": ["openai:<m>", "local:t"], "sentences": 90, "kappa": 0.75}],
}
BY_SOURCE = {"reasoning": {"n": 40, "macro_f1": 1.0}}
BEHAVIOUR = {ability: {"passed": 3, "total": 4, "failed": ["<b>: anger"]} for ability in ABILITIES}


class LoudVerifier:
    labels = NAMES

    def predict(self, sentences):
        rows = torch.zeros(len(sentences), len(NAMES))
        for row, sentence in zip(rows, sentences, strict=True):
            row[NAMES.index("anger" if "loud" in sentence else "neutral")] = 0.9
        return rows


def prediction(policy, clip):
    label = NAMES[clip % 3]
    answer = label if (clip + len(policy)) % 4 else "fear"
    explanation = "The room is <b>plain</b> & dark. The voice is loud, burning with rage."
    completion = f"<think>{explanation}</think>\n<answer>{answer}</answer>"
    if clip == 5:
        completion, answer = "no <tags> at all", None
    if clip == 7:
        completion, answer = completion.replace(f"<answer>{answer}", "<answer>bored"), None
    return {
        "dataset": "mafw",
        "clip_id": f"{clip:05d}",
        "split": "test",
        "label": label,
        "completion": completion,
        "predicted": answer,
        "judged": None if clip == 5 else "anger",
        "sentences": 0 if clip == 5 else 2,
    }


@pytest.fixture(scope="module")
def predictions():
    return {name: [prediction(name, clip) for clip in range(12)] for name in ("sft", "mine", "erv")}


@pytest.fixture(scope="module")
def evidence():
    targets = np.eye(len(NAMES), dtype=np.float32).repeat(4, axis=0)
    targets = targets[targets[:, NAMES.index("contempt")] == 0]
    quality = classification_report(0.8 * targets + 0.1, targets, np.full(len(NAMES), 0.5), NAMES)
    truth = {"face_cues": ["brows_lowered"], "voice_cues": ["voice_loud"], "channel": "both"}
    return Evidence(
        evaluations=dict.fromkeys(("sft", "mine", "erv"), MEASURED),
        verifier={
            **quality,
            "calibration": "temperature",
            "behaviour": BEHAVIOUR,
            "by_source": {"reasoning": {"n": 40, "macro_f1": 1.0}},
        },
        sentences=SENTENCES,
        data={"mafw": MAFW},
        cues={("mafw", f"{clip:05d}"): truth for clip in range(12)},
        planted=0.45,
    )


def clip_of(dataset, clip_id):
    frames = np.full((8, 16, 16, 3), int(clip_id) * 20, dtype=np.uint8)
    return Clip(clip_id, frames, np.zeros(16000, dtype=np.int16), 16000)


def page(predictions, evidence, **options):
    shared = {"seed": 0, "find_cues": find_cues, **options}
    comparison = build_comparison(predictions, evidence, SETTINGS, **shared)
    html = render_report(
        predictions, comparison, evidence, SETTINGS, verifier=LoudVerifier(), clip_of=clip_of, **shared
    )
    return comparison, html


class Checker(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(predictions, evidence):
    _, html = page(predictions, evidence)
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert checker.links
    outside = {link for link in checker.links if not link.startswith("data:")}
    assert outside <= {f"#{name}" for name in checker.ids}
    assert len(checker.ids) == len(set(checker.ids))
    assert "@import" not in html
    assert "<script" not in html
    assert re.findall(r"https?://[^\s\"'<]+", html) == []


def test_what_a_model_writes_is_text_not_markup(predictions, evidence):
    _, html = page(predictions, evidence)
    assert "<b>plain" not in html
    assert "&lt;b&gt;plain&lt;/b&gt; &amp; dark." in html
    assert "no audio &lt;stream&gt;" in html


def test_the_page_shows_figures_cues_and_sentences(predictions, evidence):
    comparison, html = page(predictions, evidence)
    for policy in predictions:
        assert f"{100 * comparison['policies'][policy]['overall']['WAR']['value']:.1f}" in html
    assert '<mark class="anger">The voice is loud, burning with rage.<sup>anger</sup></mark>' in html
    assert "✓ voice loud" in html
    assert "45% of the explanations" in html
    assert comparison["cues"]["erv"] == {"claimed": 11, "present": 11, "share": 1.0}
    assert comparison["malformed"] == dict.fromkeys(predictions, 1)
    assert comparison["outside"] == dict.fromkeys(predictions, 1)
    assert "bored (not a label)" in html
    for note in table_notes(comparison):
        assert note in unescape(html)
    assert comparison["judge"] == JUDGE
    assert "50.0% as a mean over emotions (30.0 to 70.0). Texts by emotion" in html
    assert "right on: anger 1 of 2, fear 0 of 0" in html
    assert comparison["decoding"] == DECODING
    assert "says nothing about contempt" in html


def test_the_page_shows_the_verifier_and_what_it_was_made_from(predictions, evidence):
    comparison, html = page(predictions, evidence)
    assert comparison["verifier"]["macro_f1"] == evidence.verifier["macro_f1"] == 1.0
    assert (
        f"calibration error {100 * comparison['verifier']['calibration_error']:.1f} over all decisions"
        in html
    )
    assert html.count(": average precision 100.0") == 10  # contempt has no held-out text
    assert "average precision 100.0, 4 texts" in html
    assert len(re.findall(r"<title>\d+ decisions: probability", html)) == 2
    assert "<td>negation</td>" in html
    assert "&lt;b&gt;: anger" in html
    assert "90 labelled sentences, 60 of them distinct (train 40, validation 10, test 10)" in html
    assert "openai:&lt;m&gt; and local:t agree with kappa 0.75 on 90 sentences" in html


def test_shape_and_control_of_explanations_are_shown(predictions, evidence):
    comparison, html = page(predictions, evidence)
    shape = comparison["explanations"]["erv"]
    # 11 of 12 clips have an explanation of 2 sentences and 14 words, none said twice.
    assert shape["sentences"] == pytest.approx(22 / 12, abs=1e-6)
    assert shape["words"] == pytest.approx(11 * 14 / 12, abs=1e-6)
    assert shape["repeated"] == 0.0
    # The judge always says anger, a third of the labels: shuffling can't change what that gives by much.
    assert shape["shuffled_EEA"] == pytest.approx(11 / 36, abs=0.02)
    assert f'<td class="num">{100 * shape["shuffled_EEA"]:.1f}</td>' in html


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": {**JUDGE, "digest": "1" * 64}}, "'sft' and 'erv' differ in their judge"),
        ({"decoding": {**DECODING, "temperature": 1.0}}, "'sft' and 'erv' differ in their decoding"),
        ({"judge": {"name": "lexical"}}, "'erv': its metrics.json does not say which judge"),
    ],
)
def test_policies_measured_differently_are_not_compared(predictions, evidence, change, message):
    evaluations = {**evidence.evaluations, "erv": {**MEASURED, **change}}
    with pytest.raises(EvaluationError, match=message):
        build_comparison(predictions, replace(evidence, evaluations=evaluations), SETTINGS, seed=0)
    with pytest.raises(EvaluationError, match="'erv' has predictions but no metrics"):
        build_comparison(
            predictions, replace(evidence, evaluations={"sft": MEASURED, "mine": MEASURED}), SETTINGS, seed=0
        )


def test_real_data_get_no_note_on_planted_contradictions(predictions, evidence):
    real = Evidence(evidence.evaluations, evidence.verifier, evidence.sentences, evidence.data)
    comparison, html = page(predictions, real, find_cues=None)
    assert "planted" not in html
    assert "cues" not in comparison
    assert "✓ voice loud" not in html


@pytest.mark.parametrize(
    ("excluded", "says"),
    [(1, "1 left out of training and tuning."), (0, "none was left out, so the figures are too good.")],
)
def test_clips_in_two_splits_are_on_the_page(predictions, evidence, excluded, says):
    pair = {"clip": "reasoning/s<1>", "use": "train", "twin": "mafw/00019", "twin_use": "test"}
    leakage = {
        "clips": {"train": 9, "validation": 2, "test": 3},
        "same_content": 1,
        "same_look": 0,
        "excluded": excluded,
        "found": [{**pair, "alike": "same content"}],
    }
    _, html = page(predictions, replace(evidence, leakage=leakage))
    assert says in html
    assert "reasoning/s&lt;1&gt; (train) = mafw/00019 (test): same content" in html
    _, html = page(predictions, replace(evidence, leakage={**leakage, "found": []}))
    assert "None is in two of these groups." in html


def test_one_policy_alone_is_a_page_too(predictions, evidence):
    comparison, html = page({"sft": predictions["sft"]}, evidence)
    assert comparison["differences"] == {}
    assert "Differences on the same clips" not in html


def test_equal_inputs_give_equal_bytes(predictions, evidence):
    first, second = page(predictions, evidence), page(predictions, evidence)
    assert first == second


def test_examples_take_every_emotion_in_turn(predictions):
    chosen = choose_examples(predictions["sft"], 6, seed=0)
    assert sorted(row["label"] for row in chosen) == sorted(NAMES[:3] * 2)
    assert chosen != choose_examples(predictions["sft"], 6, seed=1)
    assert len(choose_examples(predictions["sft"], 99, seed=0)) == 12


def test_cue_precision_counts_claims():
    rows = [
        {
            "dataset": "mafw",
            "clip_id": "1",
            "completion": "<think>The voice is loud. The voice trembles.</think>",
        }
    ]
    truth = {("mafw", "1"): {"face_cues": [], "voice_cues": ["voice_loud"]}}
    assert cue_precision(rows, truth, find_cues) == {"claimed": 2, "present": 1, "share": 0.5}
    assert cue_precision(rows, {}, find_cues)["share"] == 0.0


def test_sound_is_a_wave_of_a_few_seconds():
    clip = Clip("1", np.zeros((1, 4, 4, 3), np.uint8), np.ones(16000 * 9, np.int16), 16000)
    assert sound(clip).startswith("data:audio/wav;base64,UklGR")
    assert len(sound(clip)) == pytest.approx(5 * 8000 * 2 * 4 / 3, rel=0.01)


def test_evaluations_are_read_in_order_and_must_be_whole(predictions, tmp_path):
    for name in ("erv", "sft"):
        write_predictions(predictions[name], tmp_path / name / "predictions.parquet")
        write_json({**measure(predictions[name]), "judge": JUDGE}, tmp_path / name / "metrics.json")
    found, metrics = load_evaluations(tmp_path, ["sft", "erv"])
    assert list(found) == list(metrics) == ["sft", "erv"]
    (tmp_path / "erv" / "metrics.json").unlink()
    with pytest.raises(EvaluationError, match=r"erv.metrics\.json: metrics not found"):
        load_evaluations(tmp_path, ["sft", "erv"])
    with pytest.raises(EvaluationError, match="no evaluation of policy 'r1_omni'"):
        load_evaluations(tmp_path, ["sft", "r1_omni"])


def test_the_page_shows_the_data(predictions, evidence):
    _, html = page(predictions, evidence)
    data = html[html.index("<h2>The data</h2>") :]
    assert "fold 1, train, anger: 5" in data
    assert "fold 2, test, fear: 1" in data
    assert "train 8 · test 3 · in quarantine 2" in data
    assert "1.5 to 2 s: 7 clips" in data
    assert "no audio &lt;stream&gt;" in data
    assert "3 of 14 listed clips are not in the &lt;source&gt;" in data
    assert "<strong>not_black</strong>" in data
    assert "1 clip does not meet it" in data


@pytest.fixture
def left(tmp_path):
    """What the stages of a data set leave: folders plots, checks and validation."""
    rows = rows_of("dfew", 20)
    plots = tmp_path / "plots" / "dfew"
    write_class_balance(
        {1: {}, 2: {"train": {"happy": 9}}},
        1,
        rows,
        LabelSpace.load("dfew").names,
        plots / "class_balance.csv",
    )
    write_durations([Probe(seconds=2.2)] * 20, 60.0, plots / "durations.csv")
    write_quarantine([("extract", "no sound")] * 2, plots / "quarantine.csv")
    verdict = judge(rows, {"00003": Probe(fault="the file is empty")})
    write_json(verdict, tmp_path / "validation" / "dfew.json")
    checks = [
        {"name": name, "success": False, "found": "3 clips", "expected": "4"}
        for name in ("listed_but_absent", "published_single", "published_folds")
    ]
    write_json({"checks": checks}, tmp_path / "checks" / "dfew.json")
    return tmp_path


def test_the_evidence_of_the_data_is_what_its_stages_left(left):
    found = read_datasets(["dfew"], left / "plots", left / "checks", left / "validation")["dfew"]
    assert found.fold == 1
    assert found.splits == {"train": 12, "validation": 4, "test": 4}
    assert {row["fold"] for row in found.balance} == {"1", "2"}
    assert found.durations == [{"seconds": "2.0", "clips": "20"}]
    assert found.quarantined == 2
    assert found.warnings == [
        "listed_but_absent: 3 clips; expected 4",
        "the published counts of single, folds differ: this is not the complete set",
    ]
    assert [(item.name, item.clips) for item in found.missed] == [("media_decodable", 1)]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("plots/dfew/quarantine.csv", r"quarantine\.csv: not found; `dvc repro` writes it"),
        ("checks/dfew.json", r"dfew\.json: not found; run `dvc repro ingest` first"),
        ("validation/dfew.json", r"dfew\.json: not found; run `dvc repro validate` first"),
    ],
)
def test_a_missing_file_is_reported(left, path, message):
    (left / path).unlink()
    with pytest.raises(DataError, match=message):
        read_datasets(["dfew"], left / "plots", left / "checks", left / "validation")


def test_cues_are_read_where_a_source_has_them(tmp_path):
    cues = [
        {"clip_id": "a", "face_cues": ["smile"], "voice_cues": [], "channel": "face", "contradicts": True}
    ]
    write_table(pa.Table.from_pylist(cues), tmp_path / "reasoning" / "cues.parquet")
    (tmp_path / "mafw").mkdir()
    (tmp_path / "mafw" / "labels.txt").write_text("x")
    locks = {name: pin(name, str(tmp_path / name), None) for name in ("mafw", "reasoning")}
    record = read_cues(locks, None)
    assert record.planted == 1.0
    assert record.cues["reasoning", "a"]["channel"] == "face"
    assert record.find_cues is find_cues
    assert read_cues({"mafw": locks["mafw"]}, None).find_cues is None
