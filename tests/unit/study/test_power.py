"""Raters per pair: the formula against a simulation, and what it says when there are too few clips."""

from __future__ import annotations

import math

import numpy as np
import pytest

from erv.errors import SettingsError
from erv.settings.study import PowerSettings
from erv.study.power import overlap, sentence

SETTINGS = PowerSettings(
    preference=0.6, confidence=0.95, power=0.8, clip_correlation=0.1, rater_correlation=0.05
)


def test_independent_answers_are_those_of_the_textbook() -> None:
    """Cohen (1988): n = (1.96 + 0.84)^2 / h^2 with h = 2 asin(sqrt(0.6)) - 2 asin(sqrt(0.5)) = 0.2014."""
    plain = SETTINGS.model_copy(update={"clip_correlation": 0.0, "rater_correlation": 0.0})
    found = overlap(plain, clips=100, per_rater=1)
    h = 2 * math.asin(math.sqrt(0.6)) - 2 * math.asin(math.sqrt(0.5))
    assert found.needed == pytest.approx((1.959964 + 0.841621) ** 2 / h**2, rel=1e-3)
    assert (found.raters, found.design_effect) == (2, 1.0)


@pytest.mark.parametrize("clips", [25, 40, 60, 97, 200])
def test_one_rater_less_would_be_too_few(clips: int) -> None:
    found = overlap(SETTINGS, clips, per_rater=6)
    assert found.effective >= found.needed
    assert found.power >= SETTINGS.power
    fewer = overlap(SETTINGS, clips, per_rater=6, raters=found.raters - 1)
    assert found.raters == 2 or fewer.effective < fewer.needed
    assert fewer.power < found.power


def test_the_design_effect_is_the_variance_of_answers_in_clusters() -> None:
    clips, raters, per_rater, clip, rater = 40, 5, 8, 0.2, 0.1
    seats = clips * raters // per_rater
    rng = np.random.default_rng(1)
    # Every rater has `per_rater` different clips, every clip `raters` different raters.
    of_clip = np.arange(clips).repeat(raters)
    of_rater = np.tile(np.arange(seats), clips * raters // seats)
    assert len(set(zip(of_clip, of_rater, strict=True))) == clips * raters
    shape = (4000, 1)
    effects = [rng.normal(0, math.sqrt(size), (4000, n)) for size, n in ((clip, clips), (rater, seats))]
    noise = rng.normal(0, math.sqrt(1 - clip - rater), (4000, clips * raters))
    means = (effects[0][:, of_clip] + effects[1][:, of_rater] + noise).mean(axis=1)
    changed = SETTINGS.model_copy(update={"clip_correlation": clip, "rater_correlation": rater})
    found = overlap(changed, clips, per_rater, raters)
    assert shape[0] == len(means)
    assert means.var() == pytest.approx(1 / found.effective, rel=0.06)


def test_too_few_clips_are_refused_with_how_many_it_takes() -> None:
    with pytest.raises(SettingsError, match=r"study.clips: 15 clips are too few.*draw at least 20,"):
        overlap(SETTINGS, 15, per_rater=6)
    assert overlap(SETTINGS, 20, per_rater=6).raters <= 1000


def test_what_is_printed_has_the_numbers() -> None:
    found = overlap(SETTINGS, 60, per_rater=6, raters=3)
    text = sentence(found, SETTINGS, chosen=True)
    assert text.startswith("3 raters per pair, as study.overlap says: 60 clips x 3 raters")
    assert f"takes {found.needed:.0f}. Power: {found.power:.2f}" in text
