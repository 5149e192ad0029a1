import csv
import hashlib
import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from erv.checkpoints import latest_checkpoint
from erv.data.manifest import ClipRow
from erv.errors import DataError
from erv.labels import LabelSpace
from erv.prompts import format_completion
from erv.settings import DistillSettings, RuntimeSettings, TrainErvSettings
from erv.verifier import EmotionVerifier, split_sentences
from erv.verifier.calibration import (
    calibration_error,
    choose_thresholds,
    classification_report,
    fit_temperature,
)
from erv.verifier.distill import SCHEMA, distill_reference, write_sentences
from erv.verifier.sentences import normalize
from erv.verifier.train import load_splits, train_verifier

DISTILL = DistillSettings(teacher="reference", validation_share=0.2, test_share=0.2)
RUNTIME = RuntimeSettings(device="cpu", dtype="float32", threads=1)
WORDS = {"anger": "rage", "sadness": "tears", "happiness": "joy", "fear": "danger"}
ROOMS = [
    f"{where} {what}" for where in ("small", "long", "old") for what in ("room", "hall", "house", "yard")
]
FACES = [f"{where} {what}" for where in ("young", "pale", "tired") for what in ("face", "mouth", "brow")]
VOICES = [f"{where} {what}" for where in ("low", "thin", "dry") for what in ("voice", "tone", "speech")]


def clip(number, text, label="anger"):
    name = f"sample_{number:08d}"
    completion = format_completion(text, label)
    return ClipRow(
        name,
        "reasoning",
        0,
        "train",
        label,
        label,
        None,
        completion,
        "video",
        "s3://x",
        1,
        "0" * 64,
        "",
        "",
        None,
    )


def corpus(count=120):
    rows, sheet = [], io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(["name", "index", "sentence", "labels"])
    for number in range(count):
        label = list(WORDS)[number % len(WORDS)]
        face, voice = FACES[number % len(FACES)], VOICES[number % len(VOICES)]
        text = f"The {ROOMS[number % len(ROOMS)]} is plain. The {face} shows {WORDS[label]} now."
        text += f" The {voice} tells of {WORDS[label]}."
        rows.append(clip(number, text, label))
        labels = ["neutral", label, label]
        for index, sentence in enumerate(split_sentences(text)):
            writer.writerow([rows[-1].clip_id, index, sentence, labels[index]])
    return rows, sheet.getvalue()


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    path = tmp_path_factory.mktemp("sentences") / "sentences.parquet"
    rows, sheet = corpus()
    write_sentences(distill_reference(rows, sheet, DISTILL, seed=0), path)
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import BertConfig, BertModel

    from erv.policies.tiny import train_wordpiece

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = train_wordpiece([row.completion for row in corpus()[0]], 200, 64)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=64,
            initializer_range=0.2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **sizes,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(sentences, encoder, output, checkpoints, steps=120, save_steps=40, **options):
    settings = TrainErvSettings(
        max_steps=steps, batch_size=32, learning_rate=5e-3, max_length=32, save_steps=save_steps
    )
    return train_verifier(
        sentences, encoder, output, settings, RUNTIME, seed=0, checkpoints=checkpoints, **options
    )


def digest(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(sentences, encoder, tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    logged = []
    metrics = train(
        sentences,
        encoder,
        root / "verifier",
        root / "checkpoints",
        on_metrics=lambda values, step: logged.append((step, values)),
    )
    return root, metrics, logged


def test_distill_keeps_every_sentence_and_splits_by_text():
    rows, sheet = corpus()
    table = distill_reference(rows[::-1], sheet, DISTILL, seed=0).to_pylist()
    assert len(table) == 3 * len(rows)
    assert [row["clip_id"] for row in table] == sorted(row["clip_id"] for row in table)
    splits = {}
    for row in table:
        splits.setdefault(normalize(row["sentence"]), set()).add(row["split"])
    assert len(table) > 3 * len(splits)  # texts do repeat
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}
    assert table[0] == {
        "sentence": "The small room is plain.",
        "labels": ["neutral"],
        "source": "reasoning",
        "teacher": "reference",
        "split": table[0]["split"],
        "clip_id": "sample_00000000",
    }
    assert distill_reference(rows, sheet, DISTILL, seed=1).to_pylist() != table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda sheet: sheet.replace("is plain", "is dark", 1),
            "sample_00000000.*sentence 0",
        ),
        (lambda sheet: "\n".join(sheet.splitlines()[:-1]), "sample_00000119.*3 sentences, 2 labelled"),
        (lambda sheet: sheet + "sample_00009999,0,Nobody.,neutral\n", "sample_00009999.*manifest"),
        (lambda sheet: sheet.replace(",neutral", ",bored", 1), "sample_00000000.*'bored'"),
        (lambda sheet: sheet.replace("name,index", "clip,index", 1), "lacks the columns name"),
    ],
)
def test_distill_refuses_what_does_not_match(change, message):
    rows, sheet = corpus()
    with pytest.raises(DataError, match=message):
        distill_reference(rows, change(sheet), DISTILL, seed=0)


def test_a_trained_verifier_names_emotions(trained):
    root, metrics, logged = trained
    assert metrics["macro_f1"] > 0.95
    assert metrics["calibration_error"] < 0.1
    assert metrics["unseen_share"] == 1.0
    assert metrics["n"] == sum(row["support"] for row in metrics["per_label"].values())
    assert {"disgust", "contempt"} <= set(metrics["without_support"])
    assert logged[0][1]["loss"] > logged[-1][1]["loss"]
    verifier = EmotionVerifier.from_pretrained(root / "verifier")
    assert verifier.labels == LabelSpace.load("mafw").names
    best = verifier.predict(["The young face shows joy now.", "The small room is plain."]).argmax(dim=1)
    assert [verifier.labels[index] for index in best] == ["happiness", "neutral"]
    assert json.loads((root / "verifier" / "metrics.json").read_text()) == metrics


def test_held_out_texts_count_once(sentences):
    splits = load_splits(sentences, LabelSpace.load("mafw").names)
    for name in ("validation", "test"):
        assert len(splits[name].sentences) == len({normalize(text) for text in splits[name].sentences})
    assert len(splits["train"].sentences) > len(set(splits["train"].sentences))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_text_in_two_splits_is_refused(sentences, encoder, tmp_path, split):
    rows = pq.read_table(sentences).to_pylist()
    known = next(row for row in rows if row["split"] == "train")
    leak = {**known, "sentence": known["sentence"].upper().rstrip("."), "split": split}
    pq.write_table(pa.Table.from_pylist([*rows, leak], schema=SCHEMA), tmp_path / "leak.parquet")
    with pytest.raises(DataError, match=f"is in the splits train and {split}"):
        train(tmp_path / "leak.parquet", encoder, tmp_path / "verifier", tmp_path / "checkpoints")


def test_the_folder_holds_content_only(trained):
    root, _, _ = trained
    names = set(digest(root / "verifier"))
    assert {"verifier.json", "metrics.json", "config.json", "model.safetensors"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    for path in (root / "verifier").glob("*.json"):
        assert str(root) not in path.read_text()
        assert "/encoder" not in path.read_text()


def test_equal_inputs_give_equal_bytes_also_after_an_interruption(trained, sentences, encoder, tmp_path):
    root, _, _ = trained
    # The first 80 steps are those of a run of 120 that was killed between two checkpoints.
    shutil.copytree(root / "checkpoints" / "checkpoint-80", tmp_path / "checkpoints" / "checkpoint-80")
    broken = tmp_path / "checkpoints" / "checkpoint-90"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes(b"half")
    train(sentences, encoder, tmp_path / "verifier", tmp_path / "checkpoints")
    assert not broken.exists()
    assert latest_checkpoint(tmp_path / "checkpoints").name == "checkpoint-120"
    assert digest(tmp_path / "verifier") == digest(root / "verifier")


def test_predictions_depend_on_the_sentence_not_on_its_place(trained):
    verifier = EmotionVerifier.from_pretrained(trained[0] / "verifier")
    texts = [
        "The small room is plain.",
        "The young face shows joy now.",
        "The small room is plain.",
        "x " * 100,
    ]
    rows = verifier.predict(texts)
    assert rows.shape == (4, 11)
    assert rows.dtype == torch.float32
    assert torch.equal(rows[0], rows[2])
    assert torch.equal(verifier.predict(texts[::-1]).flip(0), rows)
    assert torch.allclose(verifier.predict(texts[:1]), rows[:1], atol=1e-5)
    assert verifier.predict([]).shape == (0, 11)
    assert not any(parameter.requires_grad for parameter in verifier.model.parameters())


def test_from_pretrained_refuses_in_one_sentence(trained, tmp_path):
    with pytest.raises(DataError, match="dvc repro train_erv"):
        EmotionVerifier.from_pretrained(tmp_path)
    folder = shutil.copytree(trained[0] / "verifier", tmp_path / "verifier")
    description = json.loads((folder / "verifier.json").read_text())
    (folder / "verifier.json").write_text(json.dumps({**description, "labels": description["labels"][:-1]}))
    with pytest.raises(DataError, match="10 labels and 11 thresholds"):
        EmotionVerifier.from_pretrained(folder)


def test_temperature_recovers_a_known_one():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(4000, 3))
    targets = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    assert fit_temperature(logits * 3, targets) == pytest.approx(3.0, rel=0.1)
    calibrated = 1 / (1 + np.exp(-logits))
    overconfident = 1 / (1 + np.exp(-3 * logits))
    assert calibration_error(calibrated, targets) < 0.02 < calibration_error(overconfident, targets)


def test_thresholds_lie_in_gaps_and_default_to_a_half():
    probabilities = np.array([[0.1, 0.2], [0.2, 0.3], [0.8, 0.1], [0.9, 0.4]])
    targets = np.array([[0, 0], [1, 0], [1, 0], [1, 0]])
    low, absent = choose_thresholds(probabilities, targets)
    assert low == pytest.approx(0.15)
    assert absent == 0.5


def test_report_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.9], [0.1, 0.9]], dtype=np.float32)
    targets = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)
    report = classification_report(probabilities, targets, np.array([0.5, 0.5]), ["a", "b"])
    assert report["per_label"]["a"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert report["per_label"]["b"]["f1"] == 1.0
    assert report["macro_f1"] == 0.75
    assert report["exact_match"] == pytest.approx(1 / 3, abs=1e-6)
