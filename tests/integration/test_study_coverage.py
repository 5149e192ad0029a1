"""Over many simulated studies, intervals hold what was planted as often as they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from erv.study.analysis.checks import Rules
from erv.study.analysis.report import Level, measure
from erv.study.answers.connection import Answerbase
from erv.study.answers.database import Database
from erv.study.answers.table import write_answers
from erv.study.plan import read_key, read_study
from erv.study.simulation import Model, simulate
from tests.support.large_study import write_large_study

pytestmark = pytest.mark.slow

STUDIES = 30
MODEL = Model({"a": 0.0, "b": 0.5, "c": 1.0}, ties=0.1, alpha=0.5, clip_effect=0.5, rater_effect=0.5)


def test_planted_preferences_and_alpha_are_inside(tmp_path: Path) -> None:
    inside: dict[str, list[bool]] = {}
    for seed in range(STUDIES):
        folder = tmp_path / str(seed) / "many"
        write_large_study(
            folder, policies=list(MODEL.strengths), clips=30, raters=10, ratings=False, checks=0
        )
        study = read_study(folder)
        base = Answerbase(f"sqlite:///{tmp_path}/{seed}/answers.db")
        simulate(base, study, read_key(study), MODEL, raters=10, seed=seed)
        write_answers(Database(base, study).log(), study)
        base.close()
        found = measure(study, {}, Level(confidence=0.95, samples=300, seed=1), Rules())["passed"]
        for pair, item in found["preference"]["pairs"].items():
            share = item["share"]
            inside.setdefault("share", []).append(
                share["low"] <= MODEL.share(*pair.split("-")) <= share["high"]
            )
        apart = found["preference"]["strengths"]
        # With ties as halves, the strengths that are found are those of the odds of the shares.
        odds = np.log(1 / MODEL.share("a", "c") - 1)
        inside.setdefault("order", []).append(apart["a"]["value"] < apart["b"]["value"] < apart["c"]["value"])
        inside.setdefault("strength", []).append(2 * apart["c"]["low"] <= odds <= 2 * apart["c"]["high"])
        alpha = found["reliability"]["emotion"]["alpha"]
        inside.setdefault("alpha", []).append(alpha["low"] <= MODEL.alpha <= alpha["high"])
    shares = {name: sum(held) / len(held) for name, held in inside.items()}
    print(shares)
    assert shares["share"] >= 0.92
    assert shares["strength"] >= 0.9
    assert shares["alpha"] >= 0.85
    assert shares["order"] >= 0.7
