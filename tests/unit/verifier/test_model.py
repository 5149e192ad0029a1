import hashlib
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from erv.checkpoints import latest_checkpoint, mark_complete
from erv.distill.table import SCHEMA, write_sentences
from erv.errors import DataError, TrainingError
from erv.labels import LabelSpace
from erv.rewards.explanation import explanation_reward
from erv.sentences import normalize
from erv.settings import TrainErvSettings
from erv.train_erv.encoder import add_to_bias, load_encoder
from erv.train_erv.train_erv import _weighted_loss, load_splits, positive_weights, train_verifier
from erv.verifier import EmotionVerifier
from erv.verifier.goemotions import LABELS as GOEMOTIONS
from erv.verifier.goemotions import column_names
from erv.verifier.loading import longest_input
from erv.verifier.memory import SentenceMemory
from tests.support.paths import ROOT
from tests.support.runtime import RUNTIME
from tests.support.sentences import labelled, rows_and_sheet


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    path = tmp_path_factory.mktemp("sentences") / "sentences.parquet"
    write_sentences(labelled().sentences, path)
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import BertConfig, BertModel

    from erv.sample.tiny_policy import train_wordpiece

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = train_wordpiece([row.completion for row in rows_and_sheet()[0]], 200, 64)
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


def settings(**changes):
    values = {
        "max_steps": 120,
        "batch_size": 32,
        "learning_rate": 5e-3,
        "max_length": 32,
        "eval_steps": 40,
        "patience": None,
        "class_weights": "none",
        "calibration": "temperature",
        "thresholds": "tuned",
        "minimum_f1": 0.0,
        "minimum_labels": 0.0,
    }
    return TrainErvSettings(**{**values, **changes})


def train(sentences, encoder, output, checkpoints, *, on_metrics=None, **changes):
    options = {} if on_metrics is None else {"on_metrics": on_metrics}
    return train_verifier(
        sentences, encoder, output, settings(**changes), RUNTIME, seed=0, checkpoints=checkpoints, **options
    )


def test_a_verifier_below_the_minimum_is_not_written(sentences, encoder, tmp_path, caplog):
    """Its macro F1 of 0.000 was never said, and it was registered."""
    caplog.set_level("INFO")
    changes = {"max_steps": 1, "eval_steps": 1, "learning_rate": 1e-9, "minimum_f1": 0.9}
    said = r"macro F1 is 0\.\d+ on \d+ held-out sentences, below train_erv\.minimum_f1 \(0\.9\)"
    with pytest.raises(TrainingError, match=said):
        train(sentences, encoder, tmp_path / "verifier", tmp_path / "checkpoints", **changes)
    assert not (tmp_path / "verifier").exists()
    assert "verifier: macro F1 0." in caplog.text


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


def test_a_trained_verifier_names_emotions(trained):
    root, metrics, logged = trained
    assert metrics["macro_f1"] > 0.95
    assert metrics["calibration_error"] < 0.1
    assert metrics["n"] == sum(row["support"] for row in metrics["per_label"].values())
    assert {"disgust", "contempt"} <= set(metrics["without_support"])
    for name in ("loss", "validation_loss"):
        losses = [values[name] for _, values in logged if name in values]
        assert losses[0] > losses[-1]
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


@pytest.mark.parametrize("lost", ["the best", "the newest"])
def test_after_damage_training_still_gives_the_same_bytes(stopped, sentences, encoder, tmp_path, lost):
    """`transformers` would go on without the best checkpoint, and end with other weights."""
    root, losses, options = stopped
    folder = tmp_path / "checkpoints"
    shutil.copytree(root / "checkpoints", folder)
    best = min(losses, key=lambda item: item[1])[0]
    newest = latest_checkpoint(folder)
    for path in folder.glob("*/trainer_state.json"):  # it holds the path
        path.write_text(path.read_text().replace(str(root), str(tmp_path)))
        mark_complete(path.parent)
    damaged = folder / f"checkpoint-{best}" if lost == "the best" else newest
    assert damaged.is_dir()
    weights = damaged / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    train(sentences, encoder, tmp_path / "verifier", folder, **options)
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


def test_class_weights_move_what_is_learned_not_what_is_said():
    """A label that one sentence in ten has: weighted it is learned as one in two, and said as one in ten."""
    head = torch.nn.Linear(1, 1)
    head.config = SimpleNamespace(num_labels=1)
    targets = torch.zeros(1000, 1)
    targets[:100] = 1.0
    weights = positive_weights(targets.numpy(), "balanced")
    loss = _weighted_loss(torch.from_numpy(weights))
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50)

    def closure():
        optimizer.zero_grad()
        value = loss(SimpleNamespace(logits=head(torch.zeros(1000, 1))), targets)
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.sigmoid(head.bias).item() == pytest.approx(0.5, abs=1e-3)
    add_to_bias(head, -np.log(weights))
    assert torch.sigmoid(head.bias).item() == pytest.approx(0.1, abs=1e-3)


def test_positive_weights_by_hand():
    targets = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 1]], dtype=np.float32)
    assert positive_weights(targets, "none").tolist() == [1, 1, 1]
    assert positive_weights(targets, "balanced").tolist() == [3, 1, 1]  # none has the second, most the third
    rare = np.zeros((1000, 1), dtype=np.float32)
    rare[0] = 1
    assert positive_weights(rare, "balanced").tolist() == [10]


@pytest.fixture(scope="module")
def stopped(sentences, encoder, tmp_path_factory):
    """A training that ends before its last step: so large a learning rate soon makes it worse."""
    root = tmp_path_factory.mktemp("stopped")
    steps = []
    options = {"max_steps": 400, "eval_steps": 10, "patience": 2, "learning_rate": 0.05}
    train(
        sentences,
        encoder,
        root / "verifier",
        root / "checkpoints",
        on_metrics=lambda values, step: steps.append((step, values.get("validation_loss"))),
        **options,
    )
    return root, [item for item in steps if item[1] is not None], options


def test_training_stops_early_and_keeps_the_best_weights(stopped, sentences, encoder, tmp_path):
    root, losses, _ = stopped
    best = min(losses, key=lambda item: item[1])
    assert losses[-1][0] == best[0] + 20 < 400
    verifier = EmotionVerifier.from_pretrained(root / "verifier")
    validation = load_splits(sentences, LabelSpace.load("mafw").names)["validation"]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        verifier.logits(validation.sentences), torch.from_numpy(validation.targets)
    )
    assert float(loss) == pytest.approx(best[1], rel=1e-3)


def test_a_stopped_training_that_is_resumed_stays_stopped(stopped, sentences, encoder, tmp_path):
    """Killed between its last checkpoint and its output, it gives the same bytes."""
    root, losses, options = stopped
    assert latest_checkpoint(root / "checkpoints").name == f"checkpoint-{losses[-1][0]}"
    train(sentences, encoder, tmp_path / "verifier", root / "checkpoints", **options)
    assert digest(tmp_path / "verifier") == digest(root / "verifier")


@pytest.mark.parametrize("calibration", ["none", "isotonic"])
def test_every_calibration_survives_saving(sentences, encoder, tmp_path, calibration):
    train(
        sentences,
        encoder,
        tmp_path / "v",
        tmp_path / "c",
        max_steps=40,
        calibration=calibration,
        thresholds=0.1,
    )
    verifier = EmotionVerifier.from_pretrained(tmp_path / "v")
    assert verifier.calibration.method == calibration
    assert verifier.thresholds == (0.1,) * 11
    texts = ["The young face shows joy now.", "The small room is plain."]
    logits = verifier.logits(texts).numpy()
    np.testing.assert_allclose(
        verifier.predict(texts).numpy(), verifier.calibration.probabilities(logits), atol=1e-6
    )
    assert 0.0 <= float(verifier.predict(texts).min()) <= float(verifier.predict(texts).max()) <= 1.0


def test_what_is_remembered_is_not_read_again(trained, monkeypatch, tmp_path):
    verifier = EmotionVerifier.from_pretrained(trained[0] / "verifier")
    read = []
    classify = verifier._classify
    monkeypatch.setattr(verifier, "_classify", lambda texts: read.append(list(texts)) or classify(texts))
    first = verifier.predict(["The small room is plain.", "A face."])
    verifier.predict(["The small room is plain."])
    assert read == [["A face.", "The small room is plain."], ["The small room is plain."]]  # without a memory
    verifier.memory = SentenceMemory()
    verifier.predict(["The small room is plain.", "A face."])
    again = verifier.predict(["A face.", "The small room is plain.", "A voice."])
    assert read[2:] == [["A face.", "The small room is plain."], ["A voice."]]
    assert torch.equal(again[:2], first.flip(0))
    verifier.memory.save(tmp_path)
    verifier.memory = SentenceMemory()
    verifier.memory.load(tmp_path)
    assert torch.equal(verifier.predict(["A voice.", "A face."]), again[[2, 0]])
    assert read[-1] == []
    assert verifier.predict([]).shape == (0, 11)
    verifier.memory.load(tmp_path / "no such checkpoint")
    assert len(verifier.memory) == 0


def test_a_memory_forgets_what_was_not_asked_for_the_longest():
    memory = SentenceMemory(limit=2)
    memory.note(["a", "b"], torch.tensor([[1.0], [2.0]]))
    assert memory.find("a") == torch.tensor([1.0])
    memory.note(["c"], torch.tensor([[3.0]]))
    assert memory.find("b") is None
    assert len(memory) == 2


def test_batches_hold_few_padded_tokens_and_change_nothing(trained):
    verifier = EmotionVerifier.from_pretrained(trained[0] / "verifier")
    texts = [" ".join(["face"] * (1 + number % 29)) + f" {number}." for number in range(97)]
    whole = verifier.predict(texts)
    verifier.batch_tokens = 64
    shapes = []
    verifier.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    torch.testing.assert_close(verifier.predict(texts), whole, atol=1e-5, rtol=0)
    assert sum(rows for rows, _ in shapes) == len(texts)
    assert all(rows * length <= 64 or rows == 1 for rows, length in shapes)
    assert [length for _, length in shapes] == sorted(length for _, length in shapes)


def test_half_precision_says_much_the_same_in_float32(trained):
    texts = ["The young face shows joy now.", "The small room is plain."]
    whole = EmotionVerifier.from_pretrained(trained[0] / "verifier").predict(texts)
    verifier = EmotionVerifier.from_pretrained(trained[0] / "verifier", dtype=torch.bfloat16)
    assert verifier.model.dtype is torch.bfloat16
    half = verifier.predict(texts)
    assert half.dtype is torch.float32
    torch.testing.assert_close(half, whole, atol=0.05, rtol=0)


def test_text_that_is_no_utf8_and_endless_text_are_read(trained):
    verifier = EmotionVerifier.from_pretrained(trained[0] / "verifier")
    rows = verifier.predict(["A \udc80 face.", "A ? face.", "x" * 100_000, "a " * 50_000, "", "\x00"])
    assert rows.shape == (6, 11)
    assert torch.isfinite(rows).all()
    assert torch.equal(rows[0], rows[1])


def test_a_verifier_with_broken_weights_says_so(trained, tmp_path):
    verifier = EmotionVerifier.from_pretrained(trained[0] / "verifier")
    verifier.model.classifier.bias.data[0] = float("nan")
    with pytest.raises(DataError, match="not finite; run `dvc repro train_erv` again"):
        verifier.predict(["A face."])


# --- classifiers of the GoEmotions labels, such as the method's released one ---


@pytest.fixture(scope="module")
def released(encoder, tmp_path_factory):
    """A RoBERTa with 28 outputs and no `verifier.json`."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

    folder = tmp_path_factory.mktemp("released")
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    torch.manual_seed(1)
    RobertaForSequenceClassification(
        RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=80,
            type_vocab_size=2,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.5,
            id2label=dict(enumerate(GOEMOTIONS)),
            label2id={name: index for index, name in enumerate(GOEMOTIONS)},
            problem_type="multi_label_classification",
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_index_map_is_that_of_the_vectors():
    document = json.loads((ROOT / "tests" / "golden/data/reward_golden.json").read_text())["doc"]
    names = column_names(dict(enumerate(GOEMOTIONS)))
    assert {name: names.index(name) for name in document["label_map"]} == document["label_map"]
    assert len(set(names)) == 28
    assert column_names({index: f"LABEL_{index}" for index in range(28)}) == names
    shuffled = dict(enumerate(reversed(GOEMOTIONS)))
    assert column_names(shuffled) == names[::-1]
    assert column_names({0: "anger", 1: "joy"}) is None


def test_a_released_classifier_is_a_verifier_as_it_is(released):
    verifier = EmotionVerifier.from_pretrained(released)
    assert verifier.thresholds == (0.1,) * 28
    assert verifier.labels[17] == "happiness"
    texts = ["The young face shows joy now.", "The small room is plain."]
    torch.testing.assert_close(
        verifier.predict(texts), torch.sigmoid(verifier.logits(texts)), atol=1e-6, rtol=0
    )
    reward = explanation_reward(verifier, semantics="official")
    assert reward(["<think>The young face shows joy now.</think>"], ["happiness"])[0] in (0.0, 1.0)


def test_a_released_classifier_can_be_used_as_it_is_by_the_pipeline(released, sentences, tmp_path):
    metrics = train(
        sentences,
        released,
        tmp_path / "v",
        tmp_path / "c",
        max_steps=0,
        calibration="none",
        thresholds=0.1,
    )
    verifier = EmotionVerifier.from_pretrained(tmp_path / "v")
    assert len(verifier.labels) == 28
    assert set(metrics["per_label"]) == set(LabelSpace.load("mafw").names)
    texts = ["The young face shows joy now.", "The small room is plain."]
    assert torch.equal(verifier.predict(texts), EmotionVerifier.from_pretrained(released).predict(texts))
    assert metrics["fitted"] == {"sentences": 0, "texts": 0, "calibration": 0, "thresholds": 0}
    assert "fitted on 0 sentences" in (tmp_path / "v" / "README.md").read_text()


def test_training_from_a_released_classifier_keeps_the_outputs_that_stand_for_our_names(released):
    names = LabelSpace.load("mafw").names
    whole, tokenizer, labels = load_encoder(released, names, as_it_is=True, max_length=64)
    assert len(labels) == 28
    cut, _, kept = load_encoder(released, names, as_it_is=False, max_length=64)
    assert kept == names
    inputs = tokenizer(["The small room is plain."], return_tensors="pt")
    columns = [labels.index(name) for name in names]
    torch.testing.assert_close(cut.eval()(**inputs).logits, whole.eval()(**inputs).logits[:, columns])
    assert cut.config.num_labels == 11


def test_a_plain_encoder_can_not_be_used_as_it_is(encoder, sentences, tmp_path):
    with pytest.raises(DataError, match="not a classifier of the MAFW or GoEmotions labels"):
        train(sentences, encoder, tmp_path / "v", tmp_path / "c", max_steps=0)


def test_encoders_that_can_not_be_loaded(encoder, sentences, tmp_path):
    with pytest.raises(DataError, match=r"no encoder in it; pin a base source with encoder/config.json"):
        train(sentences, tmp_path, tmp_path / "v", tmp_path / "c")
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match="its model can't be loaded"):
        train(sentences, folder, tmp_path / "v", tmp_path / "c")
    with pytest.raises(
        DataError, match=r"train_erv.max_length: max_length is 65, but the encoder reads 64 tokens"
    ):
        train(sentences, encoder, tmp_path / "v", tmp_path / "c", max_length=65)


def without(folder, start, target):
    """A copy of a folder without the weights that have this prefix."""
    target = shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(start)}
    assert len(kept) < len(weights)
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_weights_that_are_missing_are_not_made_up(trained, encoder, released, sentences, tmp_path):
    headless = without(trained[0] / "verifier", "classifier", tmp_path / "headless")
    with pytest.raises(DataError, match=r"its weights lack classifier.bias, classifier.weight; run"):
        EmotionVerifier.from_pretrained(headless)
    hollow = without(encoder, "encoder.layer.0.output", tmp_path / "hollow")
    with pytest.raises(DataError, match=r"its weights lack bert.encoder.layer.0.output"):
        train(sentences, hollow, tmp_path / "v", tmp_path / "c")
    beheaded = without(released, "classifier", tmp_path / "beheaded")
    with pytest.raises(DataError, match=r"its weights lack classifier"):
        train(sentences, beheaded, tmp_path / "v", tmp_path / "c", max_steps=0)


def test_a_verifier_that_reads_more_than_its_encoder_can_is_refused(trained, released, tmp_path):
    folder = shutil.copytree(trained[0] / "verifier", tmp_path / "verifier")
    text = (folder / "verifier.json").read_text().replace('"max_length": 32', '"max_length": 1000')
    (folder / "verifier.json").write_text(text)
    with pytest.raises(
        DataError, match=r"verifier.json: max_length is 1000, but the encoder reads 64 tokens"
    ):
        EmotionVerifier.from_pretrained(folder)
    verifier = EmotionVerifier.from_pretrained(released)
    assert verifier.max_length == 64  # the tokenizer's
    # RoBERTa's positions begin behind that of the padding token.
    assert longest_input(verifier.model) == 80 - verifier.tokenizer.pad_token_id - 1
    verifier.max_length = longest_input(verifier.model)
    assert torch.isfinite(verifier.predict(["face " * 500])).all()


@pytest.mark.parametrize("change", [("0.5", "NaN"), ('"fear"', '"anger"')])
def test_a_description_that_makes_no_sense_is_refused(trained, tmp_path, change):
    folder = shutil.copytree(trained[0] / "verifier", tmp_path / "verifier")
    text = (folder / "verifier.json").read_text()
    assert change[0] in text
    (folder / "verifier.json").write_text(text.replace(*change, 1))
    with pytest.raises(DataError, match="expected different labels, and thresholds between 0 and 1"):
        EmotionVerifier.from_pretrained(folder)


def test_other_classifiers_without_a_description_are_refused(encoder, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="its 3 outputs are not the 28 of GoEmotions"):
        EmotionVerifier.from_pretrained(tmp_path)


def test_the_card_says_what_was_measured(trained):
    root, metrics, _ = trained
    card = (root / "verifier" / "README.md").read_text()
    assert f"macro F1 {metrics['macro_f1']:.3f}" in card
    assert f"calibration error {metrics['calibration_error']:.4f}, of the labels that it names" in card
    assert f"- from reasoning: macro F1 {metrics['by_source']['reasoning']['macro_f1']:.3f} on" in card
    assert metrics["by_source"]["reasoning"]["n"] == metrics["n"]
    for ability, found in metrics["behaviour"].items():
        assert f"- {ability}: {found['passed']} of {found['total']}" in card
    assert "macro F1 says nothing of disgust" in card
