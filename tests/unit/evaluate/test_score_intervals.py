"""Score intervals: the published ones with one group, sensible ones with several."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binomtest

from erv.evaluate.score_intervals import paired_score, share_score

Z = 1.959963984540054


@pytest.mark.parametrize(("right", "count"), [(0, 18), (1, 18), (9, 18), (17, 18), (18, 18), (51, 216)])
def test_one_share_has_wilson_s_interval(right, count):
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert share_score([right], [count], 0.95) == pytest.approx((expected.low, expected.high), abs=1e-9)


def tango(gained, lost, count):
    """Tango's interval from his closed form of the restricted estimate."""

    def score(delta):
        b = -gained - lost + (2 * count - gained + lost) * delta
        q = (math.sqrt(b * b + 8 * count * lost * delta * (1 - delta)) - b) / (4 * count)
        return (gained - lost - count * delta) / math.sqrt(count * (2 * q + delta * (1 - delta)))

    found = (gained - lost) / count
    low = brentq(lambda delta: score(delta) - Z, -1 + 1e-12, found - 1e-9)
    return low, brentq(lambda delta: score(delta) + Z, found + 1e-9, 1 - 1e-12)


@pytest.mark.parametrize(
    ("gained", "lost", "count"),
    [(0, 0, 18), (1, 0, 18), (3, 1, 18), (5, 5, 216), (9, 0, 18), (17, 1, 18), (10, 8, 18), (60, 20, 216)],
)
def test_one_paired_difference_has_tango_s_interval(gained, lost, count):
    found = paired_score([gained], [lost], [count], 0.95)
    assert found == pytest.approx(tango(gained, lost, count), abs=1e-6)
    turned = paired_score([lost], [gained], [count], 0.95)
    assert turned == pytest.approx((-found[1], -found[0]), abs=1e-9)


def test_groups_that_all_count_alike_are_worth_their_clips_together():
    assert share_score([0] * 3, [6] * 3, 0.95) == pytest.approx(share_score([0], [18], 0.95), abs=1e-9)
    same = paired_score([0] * 3, [0] * 3, [6] * 3, 0.95)
    assert same == pytest.approx(paired_score([0], [0], [18], 0.95), abs=1e-9)
    assert paired_score([6] * 3, [0] * 3, [6] * 3, 0.95)[1] == 1.0
    rare = share_score([0, 0], [34, 2], 0.95)
    assert rare[1] > share_score([0], [36], 0.95)[1]  # two clips of a class say little about its recall


def test_more_evidence_moves_both_ends_up():
    counts = [12, 5, 3]
    ends = {
        right: share_score(right, counts, 0.95)
        for right in itertools.product(*(range(count + 1) for count in counts))
    }
    for right, found in ends.items():
        assert found[0] <= np.mean(np.divide(right, counts)) <= found[1]
        for group in range(3):
            more = tuple(value + (index == group) for index, value in enumerate(right))
            if more in ends:
                assert ends[more][0] > found[0] - 1e-9
                assert ends[more][1] > found[1] - 1e-9


def test_a_wider_confidence_is_a_wider_interval():
    narrow, wide = (paired_score([4, 1], [1, 2], [20, 9], level) for level in (0.8, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
