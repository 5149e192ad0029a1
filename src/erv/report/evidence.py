"""What the page shows besides the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from erv.cues import KnownCues
from erv.report.datasets import DatasetEvidence


@dataclass(frozen=True)
class Evidence:
    """What the page shows besides the predictions.

    Attributes:
        evaluations: `metrics.json` of each policy.
        verifier: content of the verifier's `metrics.json`.
        sentences: content of `data/sentences.json`: what the verifier was trained on.
        data: what is known about each data set.
        leakage: content of `data/leakage.json`: clips found in two splits; None if they were not compared.
        cues: what clips truly show, by data set and clip id; a source that records none has no clip here.
        grounding: content of `report/grounding.json`: which claims of explanations are true; None if that was
            not checked.
        planted: share of cold-start explanations that contradict their answer by design; None unless the data
            is the sample corpus.
    """

    evaluations: Mapping[str, Mapping[str, Any]]
    verifier: Mapping[str, Any]
    sentences: Mapping[str, Any]
    data: Mapping[str, DatasetEvidence]
    leakage: Mapping[str, Any] | None = None
    cues: KnownCues = field(default_factory=dict)
    grounding: Mapping[str, Any] | None = None
    planted: float | None = None
