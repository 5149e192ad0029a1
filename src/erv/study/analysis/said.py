"""What raters say of single explanations and of clips, and how long they take."""

from __future__ import annotations

from typing import Any

import numpy as np

from erv.labels import LabelSpace
from erv.study.analysis.draws import Draws
from erv.study.analysis.people import Clip, People
from erv.study.plan import RATINGS, Key, Study


def ratings_of(people: People, draws: Draws) -> dict[str, Any]:
    """Mean ratings, and differences between policies.

    Returns:
        `policies`: policy -> what is rated -> value, low, high (1..5). `differences`: "later-earlier" -> what
        is rated -> value, low, high, the later one's mean minus the earlier one's, on the same draws.
    """
    rated = [policy for policy in people.policies if any(one.policy == policy for one in people.ratings)]
    policies: dict[str, Any] = {policy: {} for policy in rated}
    differences: dict[str, Any] = {
        f"{later}-{earlier}": {} for place, later in enumerate(rated) for earlier in rated[:place]
    }
    for name in RATINGS if rated else ():
        drawn, means = {}, {}
        for policy in rated:
            mine = [one for one in people.ratings if one.policy == policy]
            values = np.array([one.values[name] for one in mine], dtype=np.float64)
            who, what = [one.rater for one in mine], [one.clip for one in mine]
            sums = draws.sums(who, what, np.stack([values, np.ones(len(values))], axis=1))
            with np.errstate(invalid="ignore", divide="ignore"):
                drawn[policy], means[policy] = sums[:, 0] / sums[:, 1], float(values.mean())
            policies[policy][name] = draws.percentiles(means[policy], drawn[policy])
        for place, later in enumerate(rated):
            for earlier in rated[:place]:
                differences[f"{later}-{earlier}"][name] = draws.percentiles(
                    means[later] - means[earlier], drawn[later] - drawn[earlier]
                )
    return {"policies": policies, "differences": differences}


def emotions_of(people: People, study: Study, key: Key, draws: Draws) -> dict[str, Any]:
    """How often raters see the emotion that a clip is labelled with.

    Returns:
        `label`: the share of answers with the clip's label (value, low, high), among clips whose label has a
        name in the study's label space. `answers`: how many these are. `by_label`: label -> `answers` and the
        share of them that see it.
    """
    label_of = labels_of(study, key)
    mine = [(one, label_of[one.clip]) for one in people.seen if label_of[one.clip] is not None]
    values = [float(one.emotion == label) for one, label in mine]
    by_label: dict[str, Any] = {}
    for label in study.emotions:
        right = [value for value, (_, name) in zip(values, mine, strict=True) if name == label]
        if right:
            by_label[label] = {"answers": len(right), "share": round(sum(right) / len(right), 6)}
    share = draws.share(values, [one.rater for one, _ in mine], [one.clip for one, _ in mine])
    return {"answers": len(mine), "label": share, "by_label": by_label}


def labels_of(study: Study, key: Key) -> dict[Clip, str | None]:
    """The label of each clip in the label space of the study; None if it has no name there."""
    spaces = {about.dataset for about in key.items.values()}
    target = LabelSpace.load(study.space)
    maps = {name: None if name == study.space else LabelSpace.load(name).to(target) for name in spaces}
    found: dict[Clip, str | None] = {}
    for about in key.items.values():
        convert = maps[about.dataset]
        found[about.dataset, about.clip_id] = about.label if convert is None else convert(about.label)
    return found


def times_of(people: People) -> dict[str, Any]:
    """Seconds per main item.

    Returns:
        `kinds`: kind -> `answers`, `median`, `quarter` and `three_quarters`. `raters`: rater -> `answers` and
        `median` over all kinds.
    """
    kinds = {}
    for kind in sorted({one.kind for one in people.times}):
        seconds = [one.seconds for one in people.times if one.kind == kind]
        low, middle, high = np.percentile(seconds, [25, 50, 75])
        kinds[kind] = {
            "answers": len(seconds),
            "median": round(float(middle), 3),
            "quarter": round(float(low), 3),
            "three_quarters": round(float(high), 3),
        }
    raters = {}
    for rater in people.raters:
        seconds = [one.seconds for one in people.times if one.rater == rater]
        if seconds:
            raters[rater] = {"answers": len(seconds), "median": round(float(np.median(seconds)), 3)}
    return {"kinds": kinds, "raters": raters}
