"""Two states of the pipeline: where parameters, code and data differ, and metrics, paired clip by clip."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from erv.comparison.differences import Difference, differing_code, differing_data
from erv.comparison.sides import Side
from erv.environment import Environment
from erv.errors import ErvError, EvaluationError, RegistryError
from erv.evaluate.metrics import METRICS
from erv.lineage.objects import Objects
from erv.parameters import Change, changes
from erv.settings import Settings

_PREDICTIONS, _METRICS = "eval/{}/predictions.parquet", "eval/{}/metrics.json"
_SHOWN = 20
SCHEMA = "erv.compare/1"
_CORRECTED = "  (can't tell beside an interval without 0: verdicts are corrected for the number of metrics)"


@dataclass(frozen=True)
class Row:
    """A metric of one policy on both sides, over the clips that both were tested on; shares from 0 to 1.

    Attributes:
        before, now: the values; one of them is None if the metric is not defined there.
        low, high: interval of `now` minus `before`; None if one of them is.
        verdict: `better`, `worse` or `can't tell`, corrected over the metrics of the policy.
    """

    policy: str
    metric: str
    before: float | None
    now: float | None
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """What differs between two sides.

    Attributes:
        parameters: those that differ.
        code: that stages read, and the versions of libraries.
        data: what stages wrote, and what else they read.
        rows: metrics of the policies that both have.
        remarks: sentences on what could not be compared, and why.
    """

    before: Side
    now: Side
    parameters: tuple[Change, ...]
    code: tuple[Difference, ...]
    data: tuple[Difference, ...]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{self.before.title} → {self.now.title}"]
        for side in (self.before, self.now):
            lines += [f"  {side.title}: {text}" for text in (_origin(side), *side.remarks) if text]
        lines += ["", *_listed("parameters", [change.text() for change in self.parameters])]
        lines += ["", *_listed("code", [item.text() for item in self.code])]
        lines += ["", *_listed("data and models", [item.text() for item in self.data])]
        unchanged = []
        for policy in dict.fromkeys(row.policy for row in self.rows):
            if _md5(self.before, _PREDICTIONS.format(policy)) == _md5(self.now, _PREDICTIONS.format(policy)):
                unchanged.append(policy)
                continue
            lines += ["", f"{policy}, in percent, with the interval of the difference:"]
            lines += [_metric_line(row) for row in self.rows if row.policy == policy]
        if any(_is_corrected(row) for row in self.rows):
            lines.append(_CORRECTED)
        if unchanged:
            lines += ["", f"{', '.join(unchanged)}: the same answers"]
        return [*lines, *(["", *self.remarks] if self.remarks else [])]

    def document(self) -> dict[str, Any]:
        """The same for programs, as `erv/comparison/schemas/comparison.json` describes it."""
        return {
            "schema": SCHEMA,
            "before": _document(self.before),
            "now": _document(self.now),
            "parameters": [asdict(change) for change in self.parameters],
            "code": [{"path": item.path, "stages": list(item.stages)} for item in self.code],
            "data": [{"path": item.path, "stages": list(item.stages)} for item in self.data],
            "metrics": [asdict(row) for row in self.rows],
            "remarks": list(self.remarks),
        }


def compare_sides(
    before: Side, now: Side, environment: Environment, settings: Settings, policies: Sequence[str] = ()
) -> Comparison:
    """Compares two states.

    Args:
        before: the one to compare with.
        now: the other.
        environment: where outputs are that are not in DVC's cache here.
        settings: for confidence, draws and seed, as the report has them.
        policies: those to compare; by default all that both sides evaluated.

    Raises:
        RegistryError: a policy was not evaluated on both sides.
    """
    shared = [name for name in _policies(now) if name in _policies(before)]
    for policy in policies:
        if policy not in shared:
            raise RegistryError(f"{policy!r} was not evaluated on both sides; both have {', '.join(shared)}")
    objects = Objects(environment)
    rows: list[Row] = []
    remarks: list[str] = []
    for policy in policies or shared:
        try:
            rows += _metrics(policy, before, now, objects, settings, remarks)
        except ErvError as error:
            remarks.append(f"{policy}: {error}")
    if not shared:
        remarks.append("no policy was evaluated on both sides")
    return Comparison(
        before,
        now,
        tuple(changes(before.parameters, now.parameters)),
        differing_code(before.lock, now.lock),
        differing_data(before.lock, now.lock),
        tuple(rows),
        tuple(remarks),
    )


def _policies(side: Side) -> list[str]:
    return [name.partition("@")[2] for name in side.lock if name.startswith("evaluate@") and "@" in name]


def _metrics(
    policy: str, before: Side, now: Side, objects: Objects, settings: Settings, remarks: list[str]
) -> list[Row]:
    from erv.evaluate.compare import check_measured_alike, compare

    sides = {"before": before, "now": now}
    measured = {
        name: json.loads(_read(side, _METRICS.format(policy), objects)) for name, side in sides.items()
    }
    try:
        check_measured_alike(measured)
    except EvaluationError as error:
        raise EvaluationError(f"not comparable: {error}") from None
    predictions = {name: _rows(side, policy, objects) for name, side in sides.items()}
    common = _common(predictions, policy, remarks)
    found = compare(
        common,
        samples=settings.report.bootstrap_samples,
        confidence=settings.report.confidence,
        seed=settings.seed,
        unexplained=[name for name, item in measured.items() if not item.get("explains", True)],
    )
    ends, words = found["differences"]["now-before"]["overall"], found["verdicts"]["now-before"]["overall"]
    values = {name: found["policies"][name]["overall"] for name in sides}
    return [
        Row(
            policy,
            metric,
            values["before"][metric]["value"],
            values["now"][metric]["value"],
            ends[metric]["low"],
            ends[metric]["high"],
            words[metric]["verdict"],
        )
        for metric in METRICS
        if metric in ends and any(values[name][metric]["value"] is not None for name in sides)
    ]


def _rows(side: Side, policy: str, objects: Objects) -> list[dict[str, Any]]:
    from erv.evaluate.evaluate import read_predictions

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.parquet"
        path.write_bytes(_read(side, _PREDICTIONS.format(policy), objects))
        return read_predictions(path)


def _read(side: Side, path: str, objects: Objects) -> bytes:
    if (md5 := _md5(side, path)) is None:
        raise RegistryError(f"{side.title}: its dvc.lock has no {path}")
    return objects.read(md5)


def _md5(side: Side, path: str) -> str | None:
    """The hash of an output in the side's `dvc.lock`, if it has one."""
    outs = {out["path"]: out.get("md5") for entry in side.lock.values() for out in entry.get("outs") or []}
    return outs.get(path)


def _common(
    predictions: Mapping[str, list[dict[str, Any]]], policy: str, remarks: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """The clips that both sides answered, with the same true emotion and content; says how many are left out.

    Where a side doesn't record the content, names and emotions alone count, and that is said.
    """
    if any(row["sha256"] is None for rows in predictions.values() for row in rows):
        remarks.append(f"{policy}: paired by clip ids alone, as not both sides recorded what the clips hold")
        predictions = {name: [{**row, "sha256": None} for row in rows] for name, rows in predictions.items()}
    keys = [set(map(_clip, rows)) for rows in predictions.values()]
    shared = keys[0] & keys[1]
    left = len({key[:2] for key in keys[0] | keys[1]} - {key[:2] for key in shared})
    if not shared:
        raise EvaluationError("the two sides were tested on no clip in common")
    if left:
        remarks.append(f"{policy}: compared on {len(shared)} clips; {left} are not on both sides, or changed")
    return {name: [row for row in rows if _clip(row) in shared] for name, rows in predictions.items()}


def _clip(row: Mapping[str, Any]) -> tuple[str, str, str, str | None]:
    return row["dataset"], row["clip_id"], row["label"], row["sha256"]


def _origin(side: Side) -> str:
    if side.commit is None or (side.commit[:8] in side.title and not side.dirty):
        return ""  # it is told already
    return f"commit {side.commit[:8]}" + (" with uncommitted changes" if side.dirty else "")


def _document(side: Side) -> dict[str, Any]:
    return {
        "title": side.title,
        "commit": side.commit,
        "dirty": side.dirty,
        "remarks": list(side.remarks),
    }


def _listed(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return [f"{title}: the same"]
    more = [f"  and {len(items) - _SHOWN} more (--json lists all)"] if len(items) > _SHOWN else []
    count = "1 difference" if len(items) == 1 else f"{len(items)} differences"
    return [f"{title}: {count}", *(f"  {item}" for item in items[:_SHOWN]), *more]


def _is_corrected(row: Row) -> bool:
    """Whether the interval lacks 0 and the verdict decides nothing all the same."""
    if row.low is None or row.high is None:
        return False
    return row.verdict == "can't tell" and (row.low > 0 or row.high < 0)


def _metric_line(row: Row) -> str:
    if row.before is None or row.now is None or row.low is None or row.high is None:
        texts = ["none" if value is None else f"{100 * value:.1f}" for value in (row.before, row.now)]
        return f"  {row.metric:<14} {texts[0]:>5} → {texts[1]:>5}  {'':<24} {row.verdict}"
    gain = 100 * (row.now - row.before)
    interval = f"{gain:+.1f} ({100 * row.low:+.1f} to {100 * row.high:+.1f})"
    return f"  {row.metric:<14} {100 * row.before:5.1f} → {100 * row.now:5.1f}  {interval:<24} {row.verdict}"
