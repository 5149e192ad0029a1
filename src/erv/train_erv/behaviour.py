"""Behavioural tests of a verifier: handwritten sentences that say what it must be able to do.

Held-out sentences measure how well it reads texts like those it was trained on. These test abilities,
whatever it was trained on, each with a few minimal cases (`behaviour.yaml`):

* `minimum`: a plain sentence of each emotion is read as that emotion;
* `negation`: an emotion that a sentence denies is not read in it;
* `invariance`: another name, another word order or a paraphrase changes nothing;
* `directional`: what makes an emotion clearer or weaker moves its probability that way.

The kinds are those of CheckList (Ribeiro et al., 2020, "Beyond Accuracy").
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources
from typing import Any

import yaml

from erv.sentences import normalize
from erv.verifier.protocol import Verifier, sentence_labels, thresholds_of

ABILITIES = ("minimum", "negation", "invariance", "directional")
FILE = "behaviour.yaml"
LEAST_MOVE = 0.05


def check_behaviour(verifier: Verifier, known: Collection[str] = ()) -> dict[str, Any]:
    """Runs all cases except those with a sentence from the verifier's corpus.

    Args:
        verifier: the verifier to test.
        known: sentences of its corpus, normalised by `erv.sentences.normalize`.

    Returns:
        By ability `passed`, `total`, `known` (cases left out) and `failed`: a line for each case that did not
        pass.
    """
    every = load_cases()
    left_out = set(known)
    cases = {
        ability: [case for case in every[ability] if not {*map(normalize, _texts(case))} & left_out]
        for ability in ABILITIES
    }
    texts = sorted({text for ability in ABILITIES for case in cases[ability] for text in _texts(case)})
    probabilities = verifier.predict(texts)
    named = sentence_labels(probabilities, verifier.labels, thresholds_of(verifier))
    labels = dict(zip(texts, named, strict=True))
    rows = dict(zip(texts, probabilities.tolist(), strict=True))

    def probability(text: str, label: str) -> float:
        return float(rows[text][list(verifier.labels).index(label)])

    found: dict[str, Any] = {}
    for ability in ABILITIES:
        faults = [
            fault
            for case in cases[ability]
            if (fault := _fault(ability, case, labels, probability)) is not None
        ]
        total = len(cases[ability])
        found[ability] = {
            "passed": total - len(faults),
            "total": total,
            "known": len(every[ability]) - total,
            "failed": faults,
        }
    return found


def load_cases() -> dict[str, list[dict[str, Any]]]:
    """The cases by ability."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _texts(case: dict[str, Any]) -> list[str]:
    return [*case.get("texts", ()), *(case[key] for key in ("text", "plain", "changed") if key in case)]


def _fault(ability: str, case: dict[str, Any], labels: dict[str, list[str]], probability: Any) -> str | None:
    """What went wrong in a case, or None."""
    if ability == "minimum":
        read = labels[case["text"]]
        return None if case["label"] in read else f"{case['text']} ({case['label']}): {', '.join(read)}"
    if ability == "negation":
        read = labels[case["text"]]
        return f"{case['text']}: {', '.join(read)}" if case["denied"] in read else None
    if ability == "invariance":
        readings = [sorted(labels[text]) for text in case["texts"]]
        differing = [
            f"{text}: {', '.join(read)}"
            for text, read in zip(case["texts"], readings, strict=True)
            if read != readings[0]
        ]
        return f"{case['texts'][0]}: {', '.join(readings[0])} | {differing[0]}" if differing else None
    before, after = (probability(case[key], case["label"]) for key in ("plain", "changed"))
    move = after - before if case["moves"] == "up" else before - after
    # A probability that is already certain can't rise.
    if move >= LEAST_MOVE or (case["moves"] == "up" and min(before, after) > 1 - LEAST_MOVE):
        return None
    return f"{case['plain']} -> {case['changed']}: {case['label']} {before:.2f} -> {after:.2f}"
