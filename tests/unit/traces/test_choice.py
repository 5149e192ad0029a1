"""Which clips are written as traces."""

from __future__ import annotations

from typing import Any

import pytest

from erv.evaluate.evaluate import measure
from erv.traces.choice import choose

SAID = {  # label, answer, what three judges say
    "a agree": ("anger", "anger", "anger", "anger", "anger"),
    "b split": ("anger", "anger", "anger", "fear", None),
    "c contradicts": ("fear", "fear", "sadness", "sadness", "sadness"),
    "d wrong": ("fear", "anger", "sadness", "sadness", "sadness"),
    "e outcome": ("fear", "fear", "fear", None, "fear"),
    "f none": ("fear", None, "fear", "fear", "fear"),
    "g silent": ("fear", "fear", None, None, None),
}


def rows() -> list[dict[str, Any]]:
    return [
        {
            "dataset": "mafw",
            "clip_id": clip,
            "split": "test",
            "label": label,
            "completion": f"<think>x</think>\n<answer>{predicted}</answer>",
            "predicted": predicted,
            "judged": said[0],
            "verdicts": [
                {"judge": name, "outcome": "named" if emotion else "silent", "emotion": emotion}
                for name, emotion in zip(("lexical", "embedding", "local:m"), said, strict=True)
            ],
            "sentences": 1,
        }
        for clip, (label, predicted, *said) in reversed(SAID.items())
    ]


@pytest.mark.parametrize(
    ("kinds", "letters"),
    [
        (("disagreements",), "be"),
        (("inconsistent",), "c"),
        (("wrong",), "df"),
        (("wrong", "inconsistent"), "cdf"),
        (("disagreements", "inconsistent"), "bec"),
        (("all",), "beacdfg"),
        (("all", "wrong"), "beacdfg"),
    ],
)
def test_kinds(kinds: tuple[str, ...], letters: str) -> None:
    """Those that split the panel most come first."""
    assert "".join(row["clip_id"][0] for row in choose(rows(), kinds)) == letters


def test_by_default_what_a_reader_doubts() -> None:
    assert choose(rows()) == choose(rows(), ("disagreements", "inconsistent"))


def test_limit() -> None:
    assert [row["clip_id"] for row in choose(rows(), ("all",), 2)] == ["b split", "e outcome"]
    assert len(choose(rows(), ("all",), 100)) == len(SAID)


def test_inconsistent_ones_are_those_that_the_metric_counts() -> None:
    right = sum(label == predicted for label, predicted, *_ in SAID.values())
    share = measure(rows())["mafw"]["inconsistency"]
    assert len(choose(rows(), ("inconsistent",))) / right == pytest.approx(share)


def test_no_clips() -> None:
    assert choose([], ("all",)) == []
