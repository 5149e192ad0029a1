"""The figures of one scope: metrics with intervals, paired differences, verdicts, and a table by emotion."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erv.evaluate.applicable import is_about_explanations
from erv.evaluate.draws import Key, bootstrap
from erv.evaluate.intervals import (
    Interval,
    difference_interval,
    mean_interval,
    ratio_difference_interval,
    ratio_interval,
    share_interval,
    undefined,
)
from erv.evaluate.metrics import JUDGED, METRICS, NEITHER_IS_BETTER
from erv.evaluate.outcomes import Term
from erv.evaluate.significance import ratio_test, recall_test, share_test, verdicts

HEADLINE = ""  # the reading in the column `judged`
UAR = "UAR"


@dataclass(frozen=True)
class Scope:
    """Policies on the clips of one scope.

    Attributes:
        name: `overall` or a data set.
        terms: policy -> (judge, metric) -> what each clip adds. The metrics of all policies are the same: all
            but UAR.
        labels: the true emotion of each clip.
        predicted: the answers of each policy.
        confidence: of the intervals.
        seed: of draws and tests.
        unexplained: policies that answer without explaining; figures about explanations don't apply to them.
    """

    name: str
    terms: Mapping[str, Mapping[Key, Term]]
    labels: Sequence[str]
    predicted: Mapping[str, Sequence[str | None]]
    confidence: float
    seed: int
    unexplained: frozenset[str] = frozenset()

    def fill(self, targets: Mapping[str, dict[str, Any]], samples: int) -> None:
        """Adds the figures of this scope to those of each judge.

        Args:
            targets: judge (`HEADLINE` for the reading in `judged`) -> its `policies`, `classes`,
                `differences` and `verdicts`.
            samples: number of bootstrap draws.
        """
        emotions = np.unique(self.labels, return_inverse=True)[1]
        values, draws = bootstrap(list(self.terms.values()), emotions, self.name, samples, self.seed)
        keys: list[Key] = [*next(iter(self.terms.values())), (HEADLINE, UAR)]
        column = {key: index for index, key in enumerate(keys)}
        names = list(self.terms)
        tested: dict[tuple[str, str, Key], dict[str, Any]] = {}
        for judge, target in targets.items():
            metrics = {metric: column[reader, metric] for reader, metric in keys if reader == judge}
            for i, name in enumerate(names):
                target["classes"][name][self.name] = self._classes(name, judge)
                target["policies"][name][self.name] = {
                    metric: self._interval(name, (judge, metric), emotions, values[i, m], draws[:, i, m])
                    for metric, m in metrics.items()
                    if self._applies(metric, name)
                }
                for k, earlier in enumerate(names[:i]):
                    found = {
                        metric: self._difference(
                            (name, earlier),
                            (judge, metric),
                            emotions,
                            values[i, m] - values[k, m],
                            draws[:, i, m] - draws[:, k, m],
                        )
                        for metric, m in metrics.items()
                        if self._applies(metric, name, earlier)
                    }
                    pair = f"{name}-{earlier}"
                    target["differences"][pair][self.name] = found
                    target["verdicts"][pair][self.name] = verdicts(
                        found,
                        target["policies"][name][self.name],
                        target["policies"][earlier][self.name],
                        self._tests(name, earlier, judge, emotions, tested),
                        self.confidence,
                    )

    def _applies(self, metric: str, *policies: str) -> bool:
        """Whether a metric means something for each of these policies."""
        return not (is_about_explanations(metric) and self.unexplained.intersection(policies))

    def _groups(self, metric: str, emotions: np.ndarray) -> np.ndarray:
        """What a metric is a mean over, as a group per clip: UAR over emotions."""
        return emotions if metric == UAR else np.zeros_like(emotions)

    def _term(self, policy: str, key: Key) -> Term:
        """UAR counts the clips of WAR."""
        return self.terms[policy][HEADLINE, "WAR"] if key[1] == UAR else self.terms[policy][key]

    def _interval(
        self, policy: str, key: Key, emotions: np.ndarray, value: float, draws: np.ndarray
    ) -> Interval:
        term = self._term(policy, key)
        if np.isnan(value):
            return undefined()
        if key[1] in NEITHER_IS_BETTER:
            return mean_interval(value, draws, self.confidence)
        if term.of is not None:
            return ratio_interval(term, value, draws, self.confidence)
        return share_interval(term.over, self._groups(key[1], emotions), value, draws, self.confidence)

    def _difference(
        self, pair: tuple[str, str], key: Key, emotions: np.ndarray, value: float, draws: np.ndarray
    ) -> Interval:
        later, earlier = (self._term(policy, key) for policy in pair)
        if np.isnan(value):
            return undefined()
        if key[1] in NEITHER_IS_BETTER:
            return mean_interval(value, draws, self.confidence)
        if later.of is not None:
            return ratio_difference_interval(later, earlier, value, draws, self.confidence)
        groups = self._groups(key[1], emotions)
        return difference_interval(later.over, earlier.over, groups, value, draws, self.confidence)

    def _tests(
        self,
        later: str,
        earlier: str,
        judge: str,
        emotions: np.ndarray,
        known: dict[tuple[str, str, Key], dict[str, Any]],
    ) -> dict[str, dict[str, Any]]:
        """The tests that are corrected together: for every judge those of WAR and UAR, too, so that a judge's
        column says the same as the headline that rests on it. `known` keeps them, as no judge decides these.
        """
        found = {}
        for metric in METRICS:
            if self._applies(metric, later, earlier):
                key = (judge if metric in JUDGED else HEADLINE, metric)
                if (later, earlier, key) not in known:
                    known[later, earlier, key] = self._test(later, earlier, key, emotions)
                found[metric] = known[later, earlier, key]
        return found

    def _test(self, later: str, earlier: str, key: Key, emotions: np.ndarray) -> dict[str, Any]:
        first, second = self._term(later, key), self._term(earlier, key)
        # The same random exchanges for every judge: equal readings give equal p-values.
        named = (self.name, later, earlier, HEADLINE, key[1])
        stream = [self.seed, *(zlib.crc32(part.encode()) for part in named)]
        if key[1] == UAR:
            return recall_test(first.over, second.over, emotions, stream)
        if first.of is not None:
            return ratio_test(first, second, stream)
        return share_test(first.over, second.over)

    def _classes(self, policy: str, judge: str) -> dict[str, dict[str, float | int | None]]:
        """Every metric among the clips of each emotion; WAR is the emotion's recall there."""
        labels, answers = np.array(self.labels), np.array(self.predicted[policy], dtype=object)
        found: dict[str, dict[str, float | int | None]] = {}
        for emotion in dict.fromkeys(self.labels):
            mine = labels == emotion
            row: dict[str, float | int | None] = {"clips": int(mine.sum())}
            for (reader, metric), term in self.terms[policy].items():
                if reader == judge and self._applies(metric, policy):
                    of = None if term.of is None else term.of[mine]
                    row[metric] = _rounded(Term(term.over[mine], of).value)
            if judge == HEADLINE:
                said = answers == emotion
                row["precision"] = _rounded(float(mine[said].mean()) if said.any() else None)
            found[emotion] = row
        return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
