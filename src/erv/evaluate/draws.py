"""Metrics on bootstrap draws of clips, with the same draws for all policies."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from erv.evaluate.outcomes import Term

_CELLS = 4_000_000  # of draws times clips at once, so that 2000 draws of 10,000 clips don't fill the memory

Key = tuple[str, str]  # judge and metric


def bootstrap(
    terms: Sequence[Mapping[Key, Term]], emotions: np.ndarray, scope: str, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """All metrics of all policies, on the clips as they are and on draws.

    Args:
        terms: the same metrics of each policy, in the same order; the first is WAR, whose clips UAR counts.
        emotions: the true emotion of each clip as a number from 0, int [clips].
        scope: its name selects the stream of random numbers.
        samples: number of draws.
        seed: seed of the draws.

    Returns:
        float64 [policies, metrics + 1] and [draws, policies, metrics + 1]. The last metric is UAR. A metric
        that is not defined, because there is nothing to count among, is NaN. Without a clip there are no
        draws.
    """
    policies, names = len(terms), list(terms[0])
    if not len(emotions):
        return np.full((policies, len(names) + 1), np.nan), np.empty((0, policies, len(names) + 1))
    one_hot = (emotions[:, None] == np.arange(emotions.max() + 1)).astype(np.float32)
    # All that a draw adds up, side by side, so that one matrix product has it. Sums are whole numbers below
    # 2^24, which float32 holds exactly, in whatever order they are added.
    ratios = [index for index, name in enumerate(names) if terms[0][name].of is not None]
    over = [policy[name].over for policy in terms for name in names]
    among = [of for policy in terms for index in ratios if (of := policy[names[index]].of) is not None]
    hits = [one_hot * policy[names[0]].over[:, None] for policy in terms]
    sums = np.concatenate([np.stack([*over, *among], axis=1), one_hot, *hits], axis=1)
    ends = np.cumsum([len(over), len(among), one_hot.shape[1]])
    n = len(emotions)

    def metrics(times: np.ndarray) -> np.ndarray:
        added = (times @ sums).astype(np.float64)
        shares, of, totals, right = np.split(added, ends, axis=1)
        divisors = np.full((len(times), policies, len(names)), float(n))
        divisors[:, :, ratios] = of.reshape(-1, policies, len(ratios))
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = shares.reshape(divisors.shape) / divisors
            # An emotion that a draw misses altogether has no recall; the mean is over the others.
            recalls = right.reshape(-1, policies, one_hot.shape[1]) / totals[:, None, :]
        return np.concatenate([shares, np.nanmean(recalls, axis=2)[:, :, None]], axis=2)

    values = metrics(np.ones((1, n), dtype=np.float32))[0]
    stream = np.random.default_rng([seed, zlib.crc32(scope.encode())])
    piece = max(1, _CELLS // n)
    draws = []
    for start in range(0, samples, piece):
        picks = stream.integers(0, n, size=(min(piece, samples - start), n))
        picks += np.arange(len(picks))[:, None] * n
        times = np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape)
        draws.append(metrics(times.astype(np.float32)))
    return values, np.concatenate(draws)
