"""The figures of an evaluation: from its report, else counted in its answers, else as its run has them."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from erv.errors import ErvError
from erv.pipeline import inputs_of
from erv.results.files import Files
from erv.results.result import METRICS, UNKNOWN, Figure
from erv.results.settings_of import DIGITS, Locked, tested_by
from erv.tracking.rest import Run

COMPARISON, PREDICTIONS, METRICS_FILE = "comparison.json", "predictions.parquet", "metrics.json"
_REPORT = "report"
_SAMPLES, _CONFIDENCE = 2000, 0.95  # of intervals that are counted here, as `params.yaml` is shipped
NO_INTERVALS = (
    "the answers and the report of this result are no longer there, so its figures have no intervals"
)
_GONE = "the answers, the report and the run of this result are no longer there, and its figures with them"


@dataclass(frozen=True)
class Measured:
    """The figures of one evaluation.

    Attributes:
        scopes: `overall` and the data sets -> figures by metric.
        clips: by scope; empty if unknown.
        judge: who read the explanations, and its version.
        intervals: how they were drawn, in words.
        remarks: sentences on what is no longer there.
    """

    scopes: Mapping[str, Mapping[str, Figure]] = field(hash=False)
    clips: Mapping[str, int] = field(hash=False)
    judge: str = UNKNOWN
    intervals: str = UNKNOWN
    remarks: tuple[str, ...] = ()


def measured(
    files: Files, lock: Locked, policy: str, evaluated: Run | None, reported: Run | None, seed: int
) -> Measured:
    """The figures of an evaluation, with intervals wherever something is left to count.

    Args:
        files: where its files may be.
        lock: the lock entries.
        policy: the policy that was evaluated.
        evaluated: the run of the evaluation, or None.
        reported: the run of the report, or None.
        seed: of the draws, if they are drawn here.
    """
    about = read_json(files.read(lock, f"evaluate@{policy}", METRICS_FILE, None))
    if _reports(lock, policy):
        comparison = read_json(files.read(lock, _REPORT, COMPARISON, reported))
        if (found := in_comparison(comparison, policy, files, _run_named(reported))) is not None:
            return found
    answers = files.read(lock, f"evaluate@{policy}", PREDICTIONS, evaluated)
    counted = None if answers is None else _counted(answers, policy, about, seed)
    if counted is not None:
        return counted
    values = evaluated.data.metrics if evaluated is not None else {}
    judge = _judge(about.get("judge"))
    if not values:
        # Its data sets stay: an outage makes no other result of it.
        names = ("overall", *tested_by(lock[f"evaluate@{policy}"]))
        return Measured({name: {} for name in names}, {}, judge, remarks=(_GONE,))
    return Measured(*of_values(values), judge, remarks=(NO_INTERVALS,))


def in_comparison(comparison: Mapping[str, Any], policy: str, files: Files, where: str) -> Measured | None:
    """The figures of a policy in a comparison of anybody; None if it isn't in there.

    Args:
        comparison: as its file has it.
        policy: the policy.
        files: is told of one that has another form, which somebody may have written by hand.
        where: it was found.
    """
    if not comparison:
        return None
    if not _is_whole(comparison, policy):
        files.remarks.append(f"{where}: the figures of {policy} have a form that no report has; left out")
        return None
    return of_comparison(comparison, policy) if policy in comparison["policies"] else None


def _is_whole(comparison: Mapping[str, Any], policy: str) -> bool:
    """Whether all that is read of a policy in a comparison is of the right kind."""
    policies, clips = comparison.get("policies"), comparison.get("clips", {})
    share, draws = comparison.get("confidence"), comparison.get("bootstrap_samples")
    if not (isinstance(policies, dict) and isinstance(clips, dict) and _numbers([share, draws])):
        return False
    scopes = policies.get(policy, {})
    return (
        isinstance(scopes, dict)
        and _numbers([clips.get(scope) for scope in scopes])
        and all(isinstance(values, dict) for values in scopes.values())
        and all(_is_figure(values[name]) for values in scopes.values() for name in METRICS if name in values)
    )


def _is_figure(item: Any) -> bool:
    return isinstance(item, dict) and _numbers([item.get(name) for name in ("value", "low", "high")])


def _numbers(values: Sequence[Any]) -> bool:
    """Whether each is a finite number or isn't there."""
    return all(
        value is None
        or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
        for value in values
    )


def _run_named(run: Run | None) -> str:
    return COMPARISON if run is None else f"{COMPARISON} of MLflow run {run.info.run_id[:8]}"


def of_comparison(comparison: Mapping[str, Any], policy: str) -> Measured:
    """The figures of a policy in a comparison, as `comparison.json` has it."""
    scopes = {
        scope: {name: _figure(values[name]) for name in METRICS if name in values}
        for scope, values in comparison["policies"][policy].items()
    }
    share, draws = comparison.get("confidence"), comparison.get("bootstrap_samples")
    drawn = f"{share:.0%}, {draws} draws" if share is not None and draws is not None else UNKNOWN
    return Measured(scopes, comparison.get("clips", {}), _judge(comparison.get("judge")), drawn)


def _figure(item: Mapping[str, Any]) -> Figure:
    """Of a comparison by any version of erv: what it doesn't have isn't known."""
    return Figure(item.get("value"), item.get("low"), item.get("high"))


def of_values(
    values: Mapping[str, float], prefix: str = ""
) -> tuple[dict[str, dict[str, Figure]], dict[str, int]]:
    """Figures and numbers of clips by scope, from the metrics of a run.

    Args:
        values: `overall/EPC` and the like.
        prefix: of those that count, `erv/`.
    """
    scopes: dict[str, dict[str, Figure]] = {}
    clips: dict[str, int] = {}
    for name, value in sorted(values.items()):
        scope, _, metric = name.removeprefix(prefix).partition("/")
        if not name.startswith(prefix):
            continue
        if metric in METRICS:
            scopes.setdefault(scope, {})[metric] = Figure(value)
        elif metric == "clips" and math.isfinite(value):
            clips[scope] = int(value)
    return scopes, clips


def _reports(lock: Locked, policy: str) -> bool:
    """Whether the report of a lock is of this evaluation, and not of one before it."""
    if _REPORT not in lock:
        return False
    read = [item for item in inputs_of(lock, _REPORT) if item.path == "eval"]
    return bool(read) and read[0].as_written is True and f"evaluate@{policy}" in read[0].makers


def _counted(answers: bytes, policy: str, about: Mapping[str, Any], seed: int) -> Measured | None:
    """The figures counted again in the answers; None if they can't be read."""
    from erv.evaluate.compare import compare
    from erv.evaluate.evaluate import read_predictions

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PREDICTIONS
        path.write_bytes(answers)
        try:
            rows = read_predictions(path)
            unexplained = () if about.get("explains", True) else (policy,)
            found = compare(
                {policy: rows},
                samples=_SAMPLES,
                confidence=_CONFIDENCE,
                seed=seed,
                unexplained=unexplained,
            )
        except ErvError:
            return None
    return of_comparison({**found, "judge": about.get("judge")}, policy)


def _judge(described: Any) -> str:
    if not isinstance(described, dict) or "name" not in described:
        return UNKNOWN
    digest = described.get("digest")
    return f"{described['name']}, version {str(digest)[:DIGITS]}" if digest else str(described["name"])


def read_json(content: bytes | None) -> dict[str, Any]:
    """An object in JSON; empty if there is none, or it can't be read."""
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def scopes_of(found: Measured) -> Iterator[str]:
    """The scopes to show: of a single data set, `overall` is the same."""
    named = [scope for scope in found.scopes if scope != "overall"]
    yield from named if len(named) == 1 else found.scopes
