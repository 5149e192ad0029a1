"""A verifier's quality is said in one line, and one that is too poor never becomes a reward."""

import numpy as np
import pytest

from erv.errors import TrainingError
from erv.labels import LabelSpace
from erv.train_erv.quality import quality, require_quality
from erv.train_erv.scores import classification_report

METRICS = {
    "macro_f1": 0.61,
    "n": 85,
    "without_support": ["contempt"],
    "per_label": {
        "anger": {"f1": 0.9, "support": 20},
        "fear": {"f1": 0.2, "support": 30},
        "sadness": {"f1": 0.7, "support": 35},
        "neutral": {"f1": 0.8, "support": 35},
        "contempt": {"f1": 0.0, "support": 0},
    },
}


def test_the_line_names_score_sentences_and_lows():
    assert quality(METRICS) == (
        "macro F1 0.610 on 85 held-out sentences; lowest: fear 0.20, sadness 0.70, neutral 0.80;"
        " not measured: contempt"
    )


def test_below_the_minimum_it_is_refused():
    require_quality(METRICS, 0.61, 0.8)
    with pytest.raises(TrainingError) as caught:
        require_quality({**METRICS, "macro_f1": 0.0}, 0.5, 0.8)
    assert str(caught.value) == (
        "the verifier's macro F1 is 0.000 on 85 held-out sentences, below train_erv.minimum_f1 (0.5), so GRPO"
        " would be rewarded for noise; give it more labelled sentences or more train_erv.max_steps, or lower"
        " train_erv.minimum_f1 if you want it anyway"
    )
    require_quality({**METRICS, "macro_f1": 0.0}, 0.0, 0.8)


def test_a_verifier_that_was_asked_about_one_emotion_is_refused():
    """Nine sentences of anger gave it a macro F1 of 1.000, and it passed."""
    names = LabelSpace.load("mafw").names
    targets = np.zeros((9, 11))
    targets[:, names.index("anger")] = 1
    metrics = classification_report(np.float32(0.9) * targets, targets, np.full(11, 0.5), names)
    assert metrics["macro_f1"] == 1.0
    with pytest.raises(TrainingError) as caught:
        require_quality(metrics, 0.5, 0.6)
    assert str(caught.value).startswith(
        "the verifier was measured on 1 of its 11 labels (with 5 held-out sentences or more each); not on"
        " disgust, fear, happiness,"
    )
    assert "at least 60% of them (train_erv.minimum_labels)" in str(caught.value)
    require_quality(metrics, 0.5, 0.0)


def test_an_emotion_with_fewer_than_five_sentences_is_not_measured():
    def with_support(count):
        rows = {label: {**row, "support": count} for label, row in METRICS["per_label"].items()}
        return {**METRICS, "per_label": rows}

    require_quality(with_support(5), 0.5, 1.0)
    with pytest.raises(TrainingError, match="measured on 0 of its 5 labels"):
        require_quality(with_support(4), 0.5, 0.1)
