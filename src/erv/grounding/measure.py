"""Precision and recall of claims, with intervals, by policy, data set and kind.

Precision is the share of decided claims that are true; recall the share of known facts that are mentioned.
Both are shares over all clips together, so a clip with more claims weighs more. Intervals draw clips, not
claims: those of one explanation stand or fall together. Where few clips vary, score intervals with clips as
their unit take over, see `erv.evaluate.intervals`.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erv.evaluate.evaluate import OVERALL
from erv.evaluate.intervals import ENOUGH, share_interval
from erv.grounding.claims import KINDS, OUTCOMES, Case, Finding

ALL = "all"  # of the kinds together
SHARES = {"precision": ("true", "decided"), "recall": ("mentioned", "facts")}
_COUNTED = ("true", "decided", "mentioned", "facts")

Checked = Sequence[tuple[Case, Finding]]
Known = dict[str, float]
"""An interval that is defined: value, low and high."""


def measure(
    checked: Mapping[str, Checked], *, samples: int, confidence: float, seed: int, by_chance: bool
) -> dict[str, Any]:
    """Measures policies on the same clips.

    Args:
        checked: explanations and findings by policy, in the order of the comparison; the same clips for all.
        samples: number of bootstrap draws, the same for all policies.
        confidence: of the intervals, e.g. 0.95.
        seed: of the draws; each scope has its own stream.
        by_chance: whether claims and facts are named alike, so that those of different clips can be compared.

    Returns:
        `policies` (policy -> scope -> kind -> `precision` and `recall` with value, low and high, or None
        without a claim or a fact; the counts `true`, `decided`, `undecided`, `mentioned` and `facts`; with
        `by_chance` also `chance_precision` and `chance_recall`, see `chance`), `differences` ("later-earlier"
        -> scope -> kind -> precision and recall) and `outcomes` (policy -> scope -> outcome -> explanations).
        Scopes are `overall` and the data sets; kinds are `all` and those that occur.
    """
    ordered = {
        policy: sorted(pairs, key=lambda pair: (pair[0].dataset, pair[0].clip_id))
        for policy, pairs in checked.items()
    }
    names = list(ordered)
    result: dict[str, Any] = {
        "policies": {name: {} for name in names},
        "differences": {f"{later}-{earlier}": {} for i, later in enumerate(names) for earlier in names[:i]},
        "outcomes": {name: {} for name in names},
    }
    datasets = sorted({case.dataset for pairs in ordered.values() for case, _ in pairs})
    for scope in (OVERALL, *datasets):
        scoped = {
            name: [pair for pair in pairs if scope in (OVERALL, pair[0].dataset)]
            for name, pairs in ordered.items()
        }
        for name, pairs in scoped.items():
            found = Counter(finding.outcome for _, finding in pairs)
            result["outcomes"][name][scope] = {outcome: found[outcome] for outcome in OUTCOMES}
        times = _draws(len(scoped[names[0]]), samples, [seed, zlib.crc32(scope.encode())])
        for kind in (ALL, *KINDS):
            counts = {name: _counts(pairs, kind) for name, pairs in scoped.items()}
            if not any(values.sum() for values in counts.values()):
                continue
            cells = {name: _Cell(values, times, confidence) for name, values in counts.items()}
            for i, name in enumerate(names):
                row = cells[name].described() | {"undecided": _undecided(scoped[name], kind)}
                result["policies"][name].setdefault(scope, {})[kind] = row | (
                    chance(scoped[name], kind) if by_chance else {}
                )
                for earlier in names[:i]:
                    result["differences"][f"{name}-{earlier}"].setdefault(scope, {})[kind] = {
                        share: cells[name].minus(cells[earlier], share, confidence) for share in SHARES
                    }
    return result


def chance(pairs: Checked, kind: str) -> dict[str, float]:
    """Precision and recall to expect if each explanation belonged to another clip of its data set.

    Args:
        pairs: explanations and findings; claims and facts of the same thing have the same text.
        kind: `all`, or one of the kinds.

    Returns:
        `chance_precision` and `chance_recall`, the means over all pairs of different clips of a data set; 0
        where nothing is claimed or known.
    """
    by_dataset: dict[str, list[Finding]] = {}
    for case, finding in pairs:
        if finding.outcome in ("checked", "silent"):
            by_dataset.setdefault(case.dataset, []).append(finding)
    hits = claimed = known = 0.0
    for findings in by_dataset.values():
        said = [{c.text for c in finding.claims if kind in (ALL, c.kind)} for finding in findings]
        true = [{f.text for f in finding.facts if kind in (ALL, f.kind)} for finding in findings]
        claimed += sum(map(len, said))
        known += sum(map(len, true))
        if len(findings) > 1:
            others = Counter(text for texts in true for text in texts)
            matches = sum(
                others[text] - (text in own) for texts, own in zip(said, true, strict=True) for text in texts
            )
            hits += matches / (len(findings) - 1)
    return {
        "chance_precision": round(hits / claimed, 6) if claimed else 0.0,
        "chance_recall": round(hits / known, 6) if known else 0.0,
    }


class _Cell:
    """The shares of one policy, scope and kind, on the clips as they are and on draws."""

    def __init__(self, counts: np.ndarray, times: np.ndarray, confidence: float) -> None:
        """Measures.

        Args:
            counts: float [4, clips] in the order of `_COUNTED`.
            times: how often each draw has each clip, float [draws, clips].
            confidence: of the intervals.
        """
        self.counts = dict(zip(_COUNTED, counts, strict=True))
        sums = dict(zip(_COUNTED, (times @ counts.T).T, strict=True))
        self.shares: dict[str, Known | None] = {}
        self.draws: dict[str, np.ndarray] = {}
        for share, (part, whole) in SHARES.items():
            total = self.counts[whole].sum()
            with np.errstate(invalid="ignore", divide="ignore"):
                self.draws[share] = sums[part] / sums[whole]
            if not total:
                self.shares[share] = None
                continue
            # Clips are the unit of the score interval: their shares add up to the value times their number.
            kept = self.counts[whole] > 0
            right = self.counts[part][kept] * (kept.sum() / total)
            draws = self.draws[share][np.isfinite(self.draws[share])]
            value = float(self.counts[part].sum() / total)
            found = share_interval(right, np.zeros(len(right), int), value, draws, confidence)
            self.shares[share] = {name: end for name, end in found.items() if end is not None}

    def described(self) -> dict[str, Any]:
        return {**self.shares, **{name: int(values.sum()) for name, values in self.counts.items()}}

    def minus(self, other: _Cell, share: str, confidence: float) -> Known | None:
        """The paired difference to an earlier policy.

        Fewer than `ENOUGH` clips on which the two differ say too little for a bootstrap: then the ends are
        those of both intervals, as if the clips were others, which is never too narrow.
        """
        own, earlier = self.shares[share], other.shares[share]
        if own is None or earlier is None:
            return None
        part, whole = SHARES[share]
        differ = (self.counts[part] != other.counts[part]) | (self.counts[whole] != other.counts[whole])
        low, high = own["low"] - earlier["high"], own["high"] - earlier["low"]
        if differ.sum() >= ENOUGH:
            draws = self.draws[share] - other.draws[share]
            tail = 100 * (1 - confidence) / 2
            low, high = np.percentile(draws[np.isfinite(draws)], [tail, 100 - tail])
        value = own["value"] - earlier["value"]
        return {"value": round(value, 6), "low": round(float(low), 6), "high": round(float(high), 6)}


def _counts(pairs: Checked, kind: str) -> np.ndarray:
    """True claims, decided claims, mentioned facts and facts of each clip: float [4, clips]."""
    rows = []
    for _, finding in pairs:
        decided = [item.true for item in finding.claims if kind in (ALL, item.kind) and item.true is not None]
        mentioned = [item.mentioned for item in finding.facts if kind in (ALL, item.kind)]
        rows.append((sum(decided), len(decided), sum(mentioned), len(mentioned)))
    return np.array(rows, dtype=float).reshape(-1, len(_COUNTED)).T


def _undecided(pairs: Checked, kind: str) -> int:
    return sum(
        item.true is None and kind in (ALL, item.kind) for _, finding in pairs for item in finding.claims
    )


def _draws(clips: int, samples: int, seed: Sequence[int]) -> np.ndarray:
    """How often each draw of clips with replacement has each clip, float32 [samples, clips]."""
    random = np.random.default_rng(seed)
    times = random.multinomial(clips, np.full(clips, 1 / max(clips, 1)), size=samples)
    return np.asarray(times, dtype=np.float32)
