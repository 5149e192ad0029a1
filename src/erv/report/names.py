"""How the page calls policies, data sets and emotions, and the colours of emotions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from erv.evaluate.evaluate import OVERALL
from erv.labels import NEUTRAL, LabelSpace

TITLES = {
    "sft": "Cold start",
    "r1_omni": "R1-Omni (format + accuracy)",
    "erv": "ERV (+ explanation reward)",
    "rft": "RFT (rejection sampling)",
}
DATASETS = {
    "mafw": "MAFW",
    "mafw_compound": "MAFW compound",
    "dfew": "DFEW",
    "ravdess": "RAVDESS",
    "reasoning": "Reasoning",
    OVERALL: "All clips",
}
# Degrees on the colour wheel, for charts and sentences.
HUES = {
    "anger": 4,
    "disgust": 92,
    "fear": 268,
    "happiness": 46,
    "sadness": 216,
    "surprise": 322,
    "contempt": 20,
    "anxiety": 180,
    "helplessness": 242,
    "disappointment": 150,
}


def titles(policies: Iterable[str]) -> dict[str, str]:
    """The policies' names on the page."""
    return {policy: TITLES.get(policy, policy) for policy in policies}


def hues(datasets: Iterable[str]) -> Mapping[str, int]:
    """A hue for every emotion of these data sets, and for those of MAFW, which verifiers name.

    An emotion has the hue of its counterpart in the MAFW space; one without has a hue of its own, from a hash
    of its name. Neutral has none.
    """
    found = dict(HUES)
    mafw = LabelSpace.load("mafw")
    for dataset in datasets:
        space = LabelSpace.load(dataset)
        to_mafw = space.to(mafw)
        for name in space.names:
            if NEUTRAL not in (name, to_mafw(name)):
                found.setdefault(name, HUES.get(to_mafw(name) or "", _hue(name)))
    return found


def _hue(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 360
