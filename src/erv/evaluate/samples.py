"""Sampled completions: several per clip, beside the one that the metrics are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from erv.evaluate.evaluate import scope_rows
from erv.evaluate.metrics import read_completion
from erv.labels import LabelSpace


class Sampled(Protocol):
    """What a policy said about one clip."""

    @property
    def samples(self) -> Sequence[str]:
        """The sampled completions."""


def with_samples(rows: Sequence[Mapping[str, Any]], completed: Mapping[str, Sampled]) -> list[dict[str, Any]]:
    """Rows of the predictions table with the column `samples`; without it if nothing was sampled.

    Args:
        rows: the rows of one data set.
        completed: by clip id.
    """
    found = []
    for row in rows:
        texts = completed[row["clip_id"]].samples
        space = LabelSpace.load(row["dataset"])
        samples = [
            {"completion": text, "predicted": read_completion(text, space).predicted} for text in texts
        ]
        found.append({**row, "samples": samples} if samples else dict(row))
    return found


def measure_samples(predictions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What the samples say of the policy, per scope; empty if nothing was sampled.

    Returns:
        `WAR`: share of the samples that are right. `any`: share of the clips with a right sample.
        `majority`: share of the clips whose commonest answer is right, of equally common ones the first.
        `agreement`: mean share of a clip's samples that give its commonest answer.
    """
    if not any("samples" in row for row in predictions):
        return {}
    result = {}
    for scope, rows in scope_rows(_one_row_per_sample(predictions)).items():
        if not rows:  # no clip has a name in the MAFW space
            continue
        clips: dict[tuple[str, str], list[tuple[str | None, str]]] = {}
        for row in rows:
            clips.setdefault((row["dataset"], row["clip_id"]), []).append((row["predicted"], row["label"]))
        right = [[answer == label for answer, label in answers] for answers in clips.values()]
        commonest = [Counter(answer for answer, _ in answers).most_common(1)[0] for answers in clips.values()]
        labels = [answers[0][1] for answers in clips.values()]
        values = {
            "WAR": sum(map(sum, right)) / sum(map(len, right)),
            "any": sum(map(any, right)) / len(right),
            "majority": sum(a == b for (a, _), b in zip(commonest, labels, strict=True)) / len(right),
            "agreement": sum(n / len(r) for (_, n), r in zip(commonest, right, strict=True)) / len(right),
        }
        result[scope] = {name: round(value, 6) for name, value in values.items()}
    return result


def _one_row_per_sample(predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "predicted": sample["predicted"]} for row in predictions for sample in row["samples"]]
