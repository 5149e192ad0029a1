"""How far raters agree with each other: Krippendorff's alpha, and its interval.

1 is full agreement, 0 what chance gives, less is contradiction. By the library `krippendorff` (Krippendorff,
2019, Content Analysis, chapter 12). The interval is from draws of clips alone: a rater who is drawn twice
would agree with their own answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from erv.evaluate.intervals import undefined
from erv.study.analysis.draws import Draws
from erv.study.analysis.people import Clip, People
from erv.study.plan import HIGHEST, LOWEST, RATINGS

Said = tuple[str, Clip, float]  # item, clip, value
Level = Literal["nominal", "ordinal"]


def reliability_of(people: People, emotions: Sequence[str], draws: Draws) -> dict[str, Any]:
    """Alpha of each question.

    Args:
        people: the answers.
        emotions: the labels that raters choose from.
        draws: of their clips.

    Returns:
        `emotion` (nominal), `preferred` (ordinal: one, tie, the other) and `ratings.NAME` (ordinal) ->
        `alpha` (value, low, high; None if no two raters answered the same item, or all answers are the
        same), `level` (of measurement), `items` (with two answers or more) and `answers` to these.
    """
    code = {emotion: float(place) for place, emotion in enumerate(emotions)}
    asked: dict[str, tuple[Level, list[Said], list[float]]] = {
        "emotion": (
            "nominal",
            [(one.item, one.clip, code[one.emotion]) for one in people.seen],
            list(code.values()),
        )
    }
    if people.preferences:
        said = [(one.item, one.clip, float(one.outcome)) for one in people.preferences]
        asked["preferred"] = ("ordinal", said, [-1.0, 0.0, 1.0])
    if people.ratings:
        domain = [float(value) for value in range(LOWEST, HIGHEST + 1)]
        for name in RATINGS:
            said = [(one.item, one.clip, float(one.values[name])) for one in people.ratings]
            asked[f"ratings.{name}"] = ("ordinal", said, domain)
    return {name: _alpha(level, said, domain, draws) for name, (level, said, domain) in asked.items()}


def _alpha(level: Level, said: Sequence[Said], domain: Sequence[float], draws: Draws) -> dict[str, Any]:
    items = list(dict.fromkeys(item for item, _, _ in said))
    clip_of = {item: clip for item, clip, _ in said}
    row = {item: place for place, item in enumerate(items)}
    column = {value: place for place, value in enumerate(domain)}
    counts = np.zeros((len(items), len(domain)), dtype=int)
    for item, _, value in said:
        counts[row[item], column[value]] += 1
    several = counts.sum(axis=1) >= 2
    paired = counts[several]
    found = {
        "level": level,
        "items": int(several.sum()),
        "answers": int(paired.sum()),
        "alpha": undefined(),
    }
    if len(paired) and (paired.sum(axis=0) > 0).sum() > 1:
        times = draws.clip_weights([clip_of[item] for item in items])[:, several].astype(int)
        drawn = [_measured(np.repeat(paired, draw, axis=0), domain, level) for draw in times]
        found["alpha"] = draws.percentiles(_measured(paired, domain, level), np.array(drawn))
    return found


def _measured(counts: np.ndarray, domain: Sequence[float], level: Level) -> float:
    """Alpha of how often each value was given to each item; NaN where all answers are the same."""
    import krippendorff

    if (counts.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    return float(
        krippendorff.alpha(value_counts=counts, value_domain=list(domain), level_of_measurement=level)
    )
