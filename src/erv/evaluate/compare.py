"""Compares policies on the same clips: intervals of every metric and of every paired difference.

Clips are drawn with replacement, with the same draw for all policies, so that easy and hard clips, which all
policies share, do not blur the difference between two (paired percentile bootstrap; Efron and Tibshirani,
1993). Where too few clips vary for that, `erv.evaluate.intervals` uses score intervals.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erv.errors import EvaluationError
from erv.evaluate.evaluate import scope_rows, scope_space
from erv.evaluate.intervals import Interval, difference_interval, share_interval
from erv.evaluate.metrics import METRICS, RELEASED, all_metrics

_COUNTED = ("WAR", "EEA", "EPC", "FCR")


def compare(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    samples: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Compares policies.

    Args:
        predictions: rows of the predictions table by policy, in the order of the comparison (the earliest
            stage of training first).
        samples: number of bootstrap draws.
        confidence: confidence level of the intervals, e.g. 0.95.
        seed: seed of the draws; each scope has its own stream.

    Returns:
        `order` (of the policies), `policies` (policy -> scope -> metric -> value, low, high), `differences`
        ("later-earlier" -> scope -> metric -> value, low, high, the later policy's minus the earlier one's),
        `clips` (by scope), `absent` (scope -> emotions of its space without a clip), `released` (policy ->
        scope -> UAR and EEA as the released code counts them), `same_answers` (pairs "later-earlier" with the
        same completion for every clip), `confidence` and `bootstrap_samples`. Scopes are `overall` and the
        data sets.

    Raises:
        EvaluationError: there is no policy or no clip, or the policies were not evaluated on the same clips.
    """
    check_paired(predictions)
    names = list(predictions)
    result: dict[str, Any] = {
        "order": names,
        "policies": {name: {} for name in names},
        "differences": {f"{later}-{earlier}": {} for i, later in enumerate(names) for earlier in names[:i]},
        "clips": {},
        "absent": {},
        "released": {name: {} for name in names},
        "same_answers": [
            f"{later}-{earlier}"
            for i, later in enumerate(names)
            for earlier in names[:i]
            if _completions(predictions[later]) == _completions(predictions[earlier])
        ],
        "confidence": confidence,
        "bootstrap_samples": samples,
    }
    by_scope = {name: scope_rows(rows) for name, rows in predictions.items()}
    for scope in by_scope[names[0]]:
        rows = {name: by_scope[name][scope] for name in names}
        result["clips"][scope] = len(rows[names[0]])
        labels = Counter(row["label"] for row in rows[names[0]])
        result["absent"][scope] = [name for name in scope_space(scope).names if name not in labels]
        values, draws = _bootstrap(rows, scope, samples, seed)
        counted = {name: _counted(rows[name]) for name in names}
        groups = _groups(rows[names[0]])
        for i, name in enumerate(names):
            result["released"][name][scope] = _released(rows[name], scope)
            result["policies"][name][scope] = {
                metric: share_interval(
                    counted[name][metric], groups[metric], values[i, m], draws[:, i, m], confidence
                )
                for m, metric in enumerate(METRICS)
            }
            for k, earlier in enumerate(names[:i]):
                result["differences"][f"{name}-{earlier}"][scope] = {
                    metric: difference_interval(
                        counted[name][metric],
                        counted[earlier][metric],
                        groups[metric],
                        values[i, m] - values[k, m],
                        draws[:, i, m] - draws[:, k, m],
                        confidence,
                    )
                    for m, metric in enumerate(METRICS)
                }
    return result


def same_answers(comparison: Mapping[str, Any], policy: str, against: str) -> bool:
    """Whether two policies of a comparison gave the same completion for every clip."""
    return bool({f"{policy}-{against}", f"{against}-{policy}"} & set(comparison["same_answers"]))


def difference(comparison: Mapping[str, Any], policy: str, against: str, scope: str, metric: str) -> Interval:
    """The interval of `policy` minus `against`, whichever way round the comparison holds it.

    Raises:
        EvaluationError: the two were not compared, or the metric doesn't apply to both.
    """
    differences = comparison["differences"]
    for pair in (f"{policy}-{against}", f"{against}-{policy}"):
        if pair in differences and metric not in differences[pair][scope]:
            raise EvaluationError(
                f"{metric} doesn't apply to both {policy!r} and {against!r}: one gives no explanations"
            )
    if f"{policy}-{against}" in differences:
        return dict(differences[f"{policy}-{against}"][scope][metric])
    if f"{against}-{policy}" in differences:
        other = differences[f"{against}-{policy}"][scope][metric]
        return {"value": -other["value"], "low": -other["high"], "high": -other["low"]}
    raise EvaluationError(f"policies {policy!r} and {against!r} were not compared; evaluate and report both")


def check_paired(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raises EvaluationError unless all policies have the same clips with the same labels."""
    if not predictions:
        raise EvaluationError("no policy to compare; run `dvc repro evaluate` first")
    first, *others = predictions
    expected = {(row["dataset"], row["clip_id"]): row["label"] for row in predictions[first]}
    if not expected:
        raise EvaluationError(f"policy {first!r} was evaluated on no clip")
    for name in others:
        found = {(row["dataset"], row["clip_id"]): row["label"] for row in predictions[name]}
        if found != expected:
            odd = min(set(found.items()) ^ set(expected.items()))[0]
            raise EvaluationError(
                f"policies {first!r} and {name!r} were not evaluated on the same clips (first: {odd[0]}"
                f" {odd[1]!r}); evaluate both again"
            )


def measuring(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """What two policies must share for their figures to be comparable: the judge and the decoding.

    Args:
        metrics: content of a policy's `metrics.json`.

    Returns:
        The judge's digest and the decoding settings, or None if the metrics lack either.
    """
    digest, decoding = metrics.get("judge", {}).get("digest"), metrics.get("decoding")
    return {"judge": digest, "decoding": decoding} if digest and decoding else None


def check_measured_alike(evaluations: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises EvaluationError unless all policies had the same judge and the same decoding.

    Args:
        evaluations: content of `metrics.json` by policy.
    """
    first = next(iter(evaluations))
    expected = measuring(evaluations[first])
    for name, metrics in evaluations.items():
        found = measuring(metrics)
        if found is None or expected is None:
            raise EvaluationError(
                f"policy {name!r}: its metrics.json does not say which judge read it and how it was decoded;"
                " run `dvc repro evaluate` again"
            )
        differing = [part for part in expected if found[part] != expected[part]]
        if differing:
            raise EvaluationError(
                f"policies {first!r} and {name!r} differ in their {' and '.join(differing)}, so they"
                " can't be compared; run `dvc repro evaluate` for both"
            )


def metrics_table(comparison: Mapping[str, Any], scope: str = "overall") -> list[dict[str, str]]:
    """A row per policy with its metrics as `74.0 (70.2 to 77.9)`, in percent, for a terminal or a page."""
    rows = []
    for policy in comparison["order"]:
        scopes = comparison["policies"][policy]
        row = {"policy": policy, "clips": str(comparison["clips"][scope])}
        for metric in METRICS:
            item = scopes[scope].get(metric)
            if item is None:  # see `erv.evaluate.applicable`
                row[metric] = "-"
                continue
            row[metric] = f"{100 * item['value']:.1f} ({100 * item['low']:.1f} to {100 * item['high']:.1f})"
        rows.append(row)
    return rows


def table_notes(comparison: Mapping[str, Any], scope: str = "overall") -> list[str]:
    """What a reader of `metrics_table` has to know: intervals, absent emotions, the released values."""

    def released(metric: str) -> str:
        return ", ".join(
            f"{policy} {100 * scopes[scope][metric]:.1f}"
            for policy, scopes in comparison["released"].items()
            if metric in scopes[scope]
        )

    absent = comparison["absent"][scope]
    lacking = f"no clip has {', '.join(absent)}" if absent else "all of them do"
    return [
        "Intervals are percentiles of a bootstrap over clips, paired for differences; where few clips count"
        " or few don't, and where two policies differ on few, they are score intervals (Wilson, Tango). For"
        " UAR that is so if it holds for any emotion.",
        f"UAR is averaged over the emotions that occur among the clips; {lacking}. The method's released code"
        " averages over the whole label space, with 0 for an absent emotion, and on MAFW leaves answers that"
        f" can't be read out of their emotion's total: {released('UAR')}.",
        "EEA reads the explanation alone. The released code counts 0 where the answer can't be read:"
        f" {released('EEA')}.",
    ]


def format_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table, aligned so that it also reads well as plain text."""
    if not rows:
        return ""
    header = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in header}

    def line(cells: Mapping[str, str]) -> str:
        return "| " + " | ".join(cells[name].ljust(widths[name]) for name in header) + " |"

    rule = "|" + "|".join("-" * (widths[name] + 2) for name in header) + "|"
    return "\n".join([line({name: name for name in header}), rule, *(line(row) for row in rows)])


def _bootstrap(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], scope: str, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Metrics of all policies on the clips as they are, [policies, metrics], and on draws, [draws, ...]."""
    keyed = [sorted(items, key=lambda row: (row["dataset"], row["clip_id"])) for items in rows.values()]
    present = {row["label"] for row in keyed[0]}
    classes = [name for name in scope_space(scope).names if name in present]
    codes = {name: index for index, name in enumerate(classes)}
    truth = np.array([codes[row["label"]] for row in keyed[0]])
    counted = np.stack([_flags(items) for items in keyed])  # [policies, metrics, clips]
    one_hot = (truth[:, None] == np.arange(len(classes))).astype(np.float32)  # [clips, classes]
    sums = _summed(counted, one_hot)
    n, shape = len(truth), (len(counted), len(classes))
    stream = np.random.default_rng([seed, zlib.crc32(scope.encode())])
    values = _metrics(np.ones((1, n), dtype=np.float32), sums, shape)[0]
    # Only how often each clip is drawn matters, so the metrics of all draws are one matrix product. It is
    # computed in pieces, so that 2000 draws of 10,000 clips do not fill the memory.
    piece = max(1, 4_000_000 // n)
    draws = []
    for start in range(0, samples, piece):
        picks = stream.integers(0, n, size=(min(piece, samples - start), n))
        picks += np.arange(len(picks))[:, None] * n
        times = np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape)
        draws.append(_metrics(times.astype(np.float32), sums, shape))
    return values, np.concatenate(draws)


def _completions(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    return {(row["dataset"], row["clip_id"]): row["completion"] for row in rows}


def _counted(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Which clips count, by metric, in the order of data set and clip; UAR counts those of WAR."""
    flags = _flags(sorted(rows, key=lambda row: (row["dataset"], row["clip_id"])))
    by_name = dict(zip(_COUNTED, flags, strict=True))
    return {**by_name, "UAR": by_name["WAR"]}


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """What each metric is a mean over, as a group per clip in the order of `_counted`: UAR over emotions."""
    ordered = sorted(rows, key=lambda row: (row["dataset"], row["clip_id"]))
    emotions = np.unique([row["label"] for row in ordered], return_inverse=True)[1]
    return {metric: emotions if metric == "UAR" else np.zeros_like(emotions) for metric in METRICS}


def _released(rows: Sequence[Mapping[str, Any]], scope: str) -> dict[str, float]:
    truth, predicted, judged = ([row[name] for row in rows] for name in ("label", "predicted", "judged"))
    values = all_metrics(truth, predicted, judged, scope_space(scope))
    return {name: float(values[f"{name}_released"]) for name in RELEASED}


def _flags(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Which clips count for WAR, EEA, EPC and FCR: float32 [4, clips]."""
    flags = []
    for row in rows:
        right = row["predicted"] == row["label"]
        heard = row["judged"] is not None and row["judged"] == row["label"]
        agrees = row["judged"] is not None and row["judged"] == row["predicted"]
        flags.append((right, heard, agrees, heard and right))
    return np.array(flags, dtype=np.float32).T


def _summed(counted: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    """All that a draw adds up, side by side, so that one matrix product has it: float32 [clips, sums].

    The flags of each policy, the clips of each class, and each policy's hits in each class. Sums are whole
    numbers below 2^24, which float32 holds exactly, in whatever order they are added.
    """
    flags = [flag for policy in counted for flag in policy]
    hits = [one_hot * policy[0][:, None] for policy in counted]
    return np.concatenate([np.stack(flags, axis=1), one_hot, *hits], axis=1)


def _metrics(times: np.ndarray, sums: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Metrics per draw: float64 [draws, policies, metrics] in the order of `METRICS`.

    Args:
        times: how often each clip is drawn, float32 [draws, clips].
        sums: from `_summed`.
        shape: numbers of policies and of classes.
    """
    policies, classes = shape
    added = (times @ sums).astype(np.float64)
    flags, totals, hits = np.split(
        added, [policies * len(_COUNTED), policies * len(_COUNTED) + classes], axis=1
    )
    shares = flags.reshape(-1, policies, len(_COUNTED)) / len(sums)
    # An emotion that a draw misses altogether has no recall; the mean is over the others.
    with np.errstate(invalid="ignore", divide="ignore"):
        recalls = hits.reshape(-1, policies, classes) / totals[:, None, :]
    by_name = dict(zip(_COUNTED, np.moveaxis(shares, 2, 0), strict=True))
    by_name["UAR"] = np.nanmean(recalls, axis=2)
    return np.stack([by_name[name] for name in METRICS], axis=2)
