"""Turns logits into calibrated probabilities, and these into labels.

Both steps are fitted on validation sentences only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

_COOLEST, _HOTTEST = 0.05, 20.0
_LOWEST, _HIGHEST = 0.05, 0.95
_SAMPLES, _SURE = 100, 0.95

Method = Literal["none", "temperature", "isotonic"]


@dataclass(frozen=True)
class Curve:
    """An increasing function of the logit, linear between its knots and constant outside."""

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities.

    Attributes:
        method: `none` and `temperature`: sigmoid(logit / temperature), with 1.0 for `none`; `isotonic`: a
            curve per label, and the sigmoid for a label without one.
        temperature: the divisor of the logits.
        curves: a curve or None per label; empty unless `isotonic`.
    """

    method: Method = "none"
    temperature: float = 1.0
    curves: tuple[Curve | None, ...] = ()

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32, of logits [n, labels]."""
        found = (1.0 / (1.0 + np.exp(-logits.astype(np.float64) / self.temperature))).astype(np.float32)
        for column, curve in enumerate(self.curves):
            if curve is not None:
                found[:, column] = np.interp(logits[:, column], curve.logits, curve.probabilities)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The content for `verifier.json`."""
        if self.method != "isotonic":
            return {"method": self.method, "temperature": self.temperature}
        curves = [
            {"logits": curve.logits, "probabilities": curve.probabilities} if curve else None
            for curve in self.curves
        ]
        return {"method": self.method, "curves": curves}

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Calibration:
        """Reads what `as_dict` wrote; raises KeyError, TypeError or ValueError for anything else."""
        if content["method"] in ("none", "temperature"):
            return Calibration(content["method"], float(content["temperature"]))
        if content["method"] != "isotonic":
            raise ValueError(f"calibration {content['method']!r}")
        curves = [
            Curve(tuple(map(float, curve["logits"])), tuple(map(float, curve["probabilities"])))
            if curve
            else None
            for curve in content["curves"]
        ]
        return Calibration("isotonic", curves=tuple(curves))


def fit_calibration(method: Method, logits: np.ndarray, targets: np.ndarray) -> Calibration:
    """Fits a calibration with scikit-learn.

    Args:
        method: `temperature`: one temperature for all labels, with the lowest binary cross-entropy (Guo et
            al., 2017, "On Calibration of Modern Neural Networks"); `isotonic`: for each label that some
            sentences have and some don't, the closest increasing curve (needs far more sentences); `none`:
            the sigmoid.
        logits: float [n, labels].
        targets: 0/1 [n, labels].
    """
    if method == "temperature":
        return Calibration("temperature", _temperature(logits, targets))
    if method == "isotonic":
        columns = range(logits.shape[1])
        return Calibration("isotonic", curves=tuple(_curve(logits[:, i], targets[:, i]) for i in columns))
    return Calibration()


def choose_thresholds(probabilities: np.ndarray, targets: np.ndarray, *, seed: int = 0) -> list[float]:
    """Per label, the threshold with the best F1 if choosing one beats 0.5 beyond chance; otherwise 0.5.

    In each of many bootstrap samples a threshold is chosen and compared, on the sentences outside the sample,
    with 0.5 and with saying yes to everything. It has to win in 95% of them. Without this test, a single
    sentence of a rare label can move the best threshold to 0.1, and a label that was not learned has its best
    F1 where nearly every sentence gets it: a reward would find such labels in whatever it reads.

    Thresholds lie halfway between neighbouring probabilities, because the middle of a gap generalises best,
    and within [0.05, 0.95]. Among equals, the one nearest to 0.5 is taken.

    Args:
        probabilities: float [n, labels].
        targets: 0/1 [n, labels].
        seed: of the bootstrap samples.
    """
    count = len(targets)
    samples = np.random.default_rng(seed).integers(0, count, (_SAMPLES, count))
    return [
        _best(values, truth) if _worth_choosing(values, truth, samples) else 0.5
        for values, truth in zip(probabilities.T.astype(np.float64), targets.T > 0.5, strict=True)
    ]


def _best(values: np.ndarray, truth: np.ndarray) -> float:
    edges = np.unique(np.concatenate([values, [0.0, 1.0]]))
    candidates = np.unique(np.append(np.clip((edges[:-1] + edges[1:]) / 2, _LOWEST, _HIGHEST), 0.5))
    scores = _f1(values > candidates[:, None], truth)
    equals = candidates[scores >= scores.max() - 1e-12]
    return float(equals[np.argmin(np.abs(equals - 0.5))])


def _worth_choosing(values: np.ndarray, truth: np.ndarray, samples: np.ndarray) -> bool:
    if not truth.any() or _best(values, truth) == 0.5:
        return False
    gains = []
    for rows in samples:
        outside = np.setdiff1d(np.arange(len(values)), rows)
        held, true = values[outside], truth[outside]
        rivals = np.stack([held > 0.5, np.ones_like(true)])
        gains.append(_f1(held > _best(values[rows], truth[rows]), true) - _f1(rivals, true).max())
    return bool(np.quantile(gains, 1 - _SURE) > 0)


def _temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression

    truth = targets.ravel() > 0.5
    if truth.all() or not truth.any():
        return 1.0
    # A logistic regression on the logit alone, without intercept: its one coefficient is 1 / temperature.
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8)
    slope = float(model.fit(logits.reshape(-1, 1), truth).coef_[0, 0])
    return float(np.clip(1.0 / slope, _COOLEST, _HOTTEST)) if slope > 0 else _HOTTEST


def _curve(logits: np.ndarray, targets: np.ndarray) -> Curve | None:
    from sklearn.isotonic import IsotonicRegression

    truth = targets > 0.5
    if truth.all() or not truth.any():
        return None
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(logits, truth)
    knots = zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True)
    rounded = [(round(logit, 6), round(probability, 6)) for logit, probability in knots]
    return Curve(tuple(logit for logit, _ in rounded), tuple(probability for _, probability in rounded))


def _f1(chosen: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """F1 of choices [..., n] against the truth [n]; 0 if nothing is chosen and nothing is true."""
    total = chosen.sum(axis=-1) + truth.sum()
    f1: np.ndarray = 2.0 * (chosen & truth).sum(axis=-1) / np.maximum(total, 1)
    return f1
