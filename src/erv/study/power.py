"""How many raters a pair needs, so that a preference of a given size is found.

A preference is a share tested against a half. For independent answers, with Cohen's effect size
h = 2 asin(sqrt(p)) - 2 asin(sqrt(1/2)), the test needs

    n = ((z(1 - alpha/2) + z(power)) / h)^2

answers (Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd ed. 1988, section 6; solved by
statsmodels). Answers are not independent: two raters see the same clip, and one rater sees several. If every
clip has k raters and every rater m clips of this pair of policies, the mean of the answers has the variance
of independent ones times the design effect

    D = 1 + (k - 1) r_clip + (m - 1) r_rater

(Kish, Survey Sampling, 1965, section 8.2, for both kinds of cluster; exact if the effects of clip and rater
add up). So with N clips the smallest k with N k / D >= n is taken. A tie counts as half a preference for
each, which this leaves out: ties make the variance smaller than assumed, not larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from erv.errors import SettingsError
from erv.settings.study import PowerSettings

MOST_RATERS = 1000  # of a pair; beyond it, more clips are the answer


@dataclass(frozen=True)
class Overlap:
    """Raters per pair.

    Attributes:
        raters: of each pair.
        clips: N, how often each pair of policies is compared.
        per_rater: m, how many of these a rater is asked; need not be whole.
        needed: n, independent answers per pair of policies.
        effective: N k / D, what the answers are worth.
        design_effect: D.
        power: of the test with these answers.
    """

    raters: int
    clips: int
    per_rater: float
    needed: float
    effective: float
    design_effect: float
    power: float


def overlap(settings: PowerSettings, clips: int, per_rater: float, raters: int | None = None) -> Overlap:
    """The raters that each pair needs.

    Args:
        settings: how sure the study must be.
        clips: how often each pair of policies is compared.
        per_rater: comparisons of one pair of policies that a rater is asked.
        raters: a number that was chosen otherwise; only its power is computed.

    Raises:
        SettingsError: no number of raters is enough for so few clips.
    """
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    # ratio 0: one sample against a fixed value.
    test, effect = NormalIndPower(ddof=0), float(proportion_effectsize(settings.preference, 0.5))
    alpha = 1 - settings.confidence
    needed = float(test.solve_power(effect_size=effect, alpha=alpha, power=settings.power, ratio=0))

    def of(count: int) -> Overlap:
        worth = _design_effect(settings, count, per_rater)
        effective = clips * count / worth
        power = float(test.power(effect, effective, alpha, ratio=0))
        return Overlap(count, clips, per_rater, needed, effective, worth, power)

    if raters is not None:
        return of(raters)
    # More raters help as long as D grows more slowly than k; both are linear in k.
    base = _design_effect(settings, 0, per_rater)
    gain = clips - needed * settings.clip_correlation
    count = max(2, math.ceil(needed * base / gain - 1e-9)) if gain > 0 else MOST_RATERS + 1
    if count > MOST_RATERS:
        least = math.ceil(needed * _design_effect(settings, MOST_RATERS, per_rater) / MOST_RATERS)
        raise SettingsError(
            f"study.clips: {clips} clips are too few to tell a preference of {settings.preference:g} from 0.5"
            f" with power {settings.power:g}, however many raters see each; draw at least {least}, or set"
            " study.overlap yourself"
        )
    return of(count)


def sentence(found: Overlap, settings: PowerSettings, *, chosen: bool) -> str:
    """What the calculation gave, in words."""
    how = "as study.overlap says" if chosen else "as the power calculation asks for"
    return (
        f"{found.raters} raters per pair, {how}: {found.clips} clips x {found.raters} raters with a design"
        f" effect of {found.design_effect:.2f} are worth {found.effective:.0f} independent answers; telling a"
        f" preference of {settings.preference:g} from 0.5 with confidence {settings.confidence:g} and power"
        f" {settings.power:g} takes {found.needed:.0f}. Power: {found.power:.2f}"
    )


def _design_effect(settings: PowerSettings, raters: int, per_rater: float) -> float:
    several = max(0.0, per_rater - 1) * settings.rater_correlation
    return 1 + (raters - 1) * settings.clip_correlation + several
