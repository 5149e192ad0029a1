"""A verifier's quality is said in one line, and one that is too poor never becomes a reward."""

import pytest

from erv.errors import TrainingError
from erv.train_erv.quality import quality, require_quality

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
    require_quality(METRICS, 0.61)
    with pytest.raises(TrainingError) as caught:
        require_quality({**METRICS, "macro_f1": 0.0}, 0.5)
    assert str(caught.value) == (
        "the verifier's macro F1 is 0.000 on 85 held-out sentences, below train_erv.minimum_f1 (0.5), so GRPO"
        " would be rewarded for noise; give it more labelled sentences or more train_erv.max_steps, or lower"
        " train_erv.minimum_f1 if you want it anyway"
    )
    require_quality({**METRICS, "macro_f1": 0.0}, 0.0)
