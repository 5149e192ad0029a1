"""Bootstrap draws of clips and raters.

Both are drawn with replacement, and an answer counts as often as its clip times as often as its rater (the
pigeonhole bootstrap: Owen, 2007, The Annals of Applied Statistics 1, 386-411). So an interval is about other
clips and other raters, not only about other answers of these. It is rather too wide than too narrow.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from erv.evaluate.intervals import Interval, share_interval, undefined

_CELLS = 4_000_000  # of draws times answers at once
_LEAST_DEFINED = 0.9  # share of the draws in which a figure must be defined


class Draws:
    """The same draws for all figures about the same raters and clips.

    Args:
        raters: all raters.
        clips: all clips.
        samples: number of draws.
        seed: their seed.
        confidence: level of the intervals, such as 0.95.
    """

    def __init__(
        self, raters: Sequence[str], clips: Sequence[Any], *, samples: int, seed: int, confidence: float
    ) -> None:
        self.confidence, self.samples = confidence, samples
        stream = np.random.default_rng([seed, zlib.crc32(b"people")])
        self._rater = {rater: place for place, rater in enumerate(raters)}
        self._clip = {clip: place for place, clip in enumerate(clips)}
        self._of_raters = _times(stream, samples, len(raters))
        self._of_clips = _times(stream, samples, len(clips))

    def sums(self, raters: Sequence[str], clips: Sequence[Any], columns: np.ndarray) -> np.ndarray:
        """Weighted sums of answers.

        Args:
            raters: of each answer.
            clips: of each answer.
            columns: float [answers, columns].

        Returns:
            float64 [draws, columns].
        """
        mine = np.array([self._rater[rater] for rater in raters], dtype=int)
        about = np.array([self._clip[clip] for clip in clips], dtype=int)
        piece = max(1, _CELLS // max(1, len(mine)))
        found = [
            (self._of_raters[start : start + piece, mine] * self._of_clips[start : start + piece, about])
            @ columns
            for start in range(0, self.samples, piece)
        ]
        result: np.ndarray = np.concatenate(found)
        return result

    def clip_weights(self, clips: Iterable[Any]) -> np.ndarray:
        """How often each of these clips was drawn: float64 [draws, clips]."""
        weights: np.ndarray = self._of_clips[:, [self._clip[clip] for clip in clips]]
        return weights

    def share(
        self, values: Sequence[float] | np.ndarray, raters: Sequence[str], clips: Sequence[Any]
    ) -> Interval:
        """The interval of a mean of shares.

        Where nearly all clips agree, draws show no spread; there it is the score interval of as many clips
        (`erv.evaluate.intervals`), so five answers that say the same are no proof.

        Args:
            values: of each answer, 0..1.
            raters: of each answer.
            clips: of each answer.
        """
        if not len(values):
            return undefined()
        numbers = np.asarray(values, dtype=np.float64)
        sums = self.sums(raters, clips, np.stack([numbers, np.ones(len(numbers))], axis=1))
        defined = sums[:, 1] > 0
        if defined.mean() < _LEAST_DEFINED:
            return undefined()
        places = {clip: place for place, clip in enumerate(dict.fromkeys(clips))}
        index = np.array([places[clip] for clip in clips])
        means = np.bincount(index, weights=numbers) / np.bincount(index)
        found = share_interval(
            means,
            np.zeros(len(means), dtype=int),
            float(numbers.mean()),
            sums[defined, 0] / sums[defined, 1],
            self.confidence,
        )
        return _around(found)

    def mean(
        self, values: Sequence[float] | np.ndarray, raters: Sequence[str], clips: Sequence[Any]
    ) -> Interval:
        """The interval of a mean that is no share: percentiles of the draws. Arguments as for `share`."""
        if not len(values):
            return undefined()
        numbers = np.asarray(values, dtype=np.float64)
        sums = self.sums(raters, clips, np.stack([numbers, np.ones(len(numbers))], axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.percentiles(float(numbers.mean()), sums[:, 0] / sums[:, 1])

    def percentiles(self, value: float, draws: np.ndarray) -> Interval:
        """The interval of a figure from its values on the draws, float [draws], NaN where it isn't defined.

        Not defined if it isn't in a tenth of the draws or more.
        """
        kept = draws[~np.isnan(draws)]
        if np.isnan(value) or len(kept) < _LEAST_DEFINED * len(draws):
            return undefined()
        tail = 100 * (1 - self.confidence) / 2
        low, high = np.percentile(kept, [tail, 100 - tail])
        return _around({"value": value, "low": float(low), "high": float(high)})


def _times(stream: np.random.Generator, samples: int, count: int) -> np.ndarray:
    """How often each of `count` things is drawn: float64 [samples, count]."""
    if not count:
        return np.zeros((samples, 0))
    times: np.ndarray = stream.multinomial(count, np.full(count, 1 / count), size=samples).astype(np.float64)
    return times


def _around(found: Interval) -> Interval:
    """Rounded to 6 digits, and with the value inside, which rounding or few draws may leave outside."""
    value, low, high = (float(found[end] or 0.0) for end in ("value", "low", "high"))
    return {"value": round(value, 6), "low": round(min(low, value), 6), "high": round(max(high, value), 6)}
