"""Gates: only on test clips, and against a champion that was measured in the same way."""

import pytest

from erv.errors import RegistryError
from erv.register.gates import Verdict, decide_against_champion, require_test_split

METRICS = {
    "judge": {"digest": "a" * 64},
    "decoding": {"max_new_tokens": 96, "temperature": 0.0, "split": "test"},
}
OPEN = (Verdict("WAR", "champion", -0.05), Verdict("WAR", None, 0.5, 0.8, True))


def rows(split="test"):
    return [
        {
            "dataset": "mafw",
            "clip_id": f"{index:05d}",
            "split": split,
            "label": "anger",
            "completion": "<answer>anger</answer>",
            "predicted": "anger",
            "judged": "anger",
        }
        for index in range(100)
    ]


def verdicts(**metrics):
    return decide_against_champion(OPEN, rows(), rows(), samples=100, confidence=0.95, seed=0, **metrics)


def test_a_champion_measured_alike_is_compared():
    found = verdicts(candidate_metrics=METRICS, champion_metrics={**METRICS, "mafw": {"WAR": 1.0}})
    # Equal answers: no worse, as far as 100 clips can say, and surely no better.
    assert (found[0].passed, found[0].value) == (True, pytest.approx(-0.037, abs=1e-3))
    assert found == verdicts()
    few = decide_against_champion(OPEN, rows()[:20], rows()[:20], samples=100, confidence=0.95, seed=0)
    assert (few[0].passed, few[0].value) == (False, pytest.approx(-0.161, abs=1e-3))
    better = (Verdict("WAR", "champion", 0.0),)
    assert not decide_against_champion(better, rows(), rows(), samples=100, confidence=0.95, seed=0)[0].passed


@pytest.mark.parametrize(
    "other",
    [
        {**METRICS, "judge": {"digest": "b" * 64}},
        {**METRICS, "decoding": {**METRICS["decoding"], "temperature": 0.7}},
        {"judge": {"name": "lexical"}},
        None,
    ],
)
def test_a_champion_measured_otherwise_fails_every_open_gate(other):
    found = verdicts(candidate_metrics=METRICS, champion_metrics=other)
    assert (found[0].passed, found[0].value) == (False, None)
    assert found[0].reason == "the champion had a different judge or different decoding"
    assert found[1] == OPEN[1]


def test_gates_are_decided_on_test_clips_only():
    require_test_split(rows())
    for wrong, name in (([*rows(), *rows("validation")], "test, validation"), ([], "none")):
        with pytest.raises(RegistryError, match=name):
            require_test_split(wrong)
