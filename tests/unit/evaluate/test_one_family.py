"""The headline's verdicts are those of its own judge: each judge's metrics are corrected with WAR and UAR."""

import random

import pytest

from erv.evaluate.compare import compare
from erv.evaluate.metrics import JUDGED
from erv.evaluate.significance import holm
from erv.report import verdicts

NAMES = ("anger", "fear", "sadness", "happiness")
WORTH = {"accuracy": 0.9, "low": 0.8, "high": 0.95, "recall": 0.9, "recall_low": 0.8, "texts": 100}


def policy(stream, share):
    """120 clips; the first judge hears the truth in about this share of the explanations."""
    rows = []
    for i in range(120):
        label = NAMES[i % 4]
        answer = label if stream.random() < 0.7 else stream.choice(NAMES)
        heard = label if stream.random() < share else stream.choice(NAMES)
        said = [
            {"judge": judge, "outcome": "named", "emotion": emotion}
            for judge, emotion in (("embedding", heard), ("lexical", label))
        ]
        clip = {"dataset": "mafw", "clip_id": f"c{i:03d}", "split": "test", "label": label, "sentences": 1}
        text = f"<think>{share} {i}.</think><answer>{answer}</answer>"
        rows.append({**clip, "completion": text, "predicted": answer, "judged": heard, "verdicts": said})
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_the_column_of_the_headline_judge_says_what_the_headline_says(seed):
    stream = random.Random(seed)
    both = {"r1_omni": policy(stream, 0.62), "erv": policy(stream, 0.78)}
    worth = dict.fromkeys(("embedding", "lexical"), WORTH)
    found = compare(both, samples=50, confidence=0.95, seed=1, worth=worth)
    headline = found["verdicts"]["erv-r1_omni"]["overall"]
    column = found["judges"]["embedding"]["verdicts"]["erv-r1_omni"]["overall"]
    assert column == {metric: headline[metric] for metric in JUDGED}
    assert all("embedding" not in against.dissent for against in verdicts.headline(found))
    other = found["judges"]["lexical"]["verdicts"]["erv-r1_omni"]["overall"]
    family = [headline[metric]["p"] for metric in ("WAR", "UAR")] + [other[m]["p"] for m in JUDGED]
    assert [other[m]["p_holm"] for m in JUDGED] == pytest.approx(holm(family)[2:], rel=1e-5)
