"""Grounding: checks the explanations of policies against what is known of their clips, and measures.

Clips whose cues are recorded are checked against those. The others are checked by a judge, if there is one,
which is shown their captions or the clips themselves. What can't be checked is counted as `unknown`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from erv.cues import KnownCues
from erv.evaluate.evaluate import OVERALL
from erv.evaluate.intervals import Interval, share_interval
from erv.grounding.claims import Case, Checker, CueChecker, Finding, cases_of
from erv.grounding.measure import ALL, SHARES, Known, measure
from erv.manifest import write_table

SCHEMA = pa.schema(
    [
        pa.field("policy", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("checked_by", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field(
            "claims",
            pa.list_(pa.struct([("text", pa.string()), ("kind", pa.string()), ("true", pa.bool_())])),
            nullable=False,
        ),
        pa.field(
            "facts",
            pa.list_(pa.struct([("text", pa.string()), ("kind", pa.string()), ("mentioned", pa.bool_())])),
            nullable=False,
        ),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

WAYS = ("cues", "captions", "clips")  # what explanations are compared with

Rows = Sequence[Mapping[str, Any]]


def ground(
    predictions: Mapping[str, Rows],
    known: KnownCues,
    *,
    captions: Mapping[tuple[str, str], str | None],
    judge: Checker | None,
    samples: int,
    confidence: float,
    seed: int,
    silent: Collection[str] = (),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Checks and measures all policies.

    Args:
        predictions: rows of the predictions table by policy, on the same clips.
        known: the cues of clips; none for data sets whose source records none.
        captions: descriptions by people, by data set and clip id.
        judge: checks the explanations of clips without known cues; None for none.
        samples: number of bootstrap draws.
        confidence: of the intervals, e.g. 0.95.
        seed: of the draws.
        silent: policies that give no explanation by design: only `channels` applies to them.

    Returns:
        The measured values: `cues` and, with a judge, `captions` or `clips`, each as `measure` returns it,
        for the data sets that it applies to; `channels`, see there; `judge`, its name or None. And rows of
        the table of claims.
    """
    recorded = {dataset for dataset, clips in known.items() if clips}
    drawn: dict[str, Any] = {"samples": samples, "confidence": confidence, "seed": seed}
    result: dict[str, Any] = {
        "judge": judge.name if judge else None,
        "channels": channels(predictions, known, **drawn),
    }
    table: list[dict[str, Any]] = []
    explained = {policy: rows for policy, rows in predictions.items() if policy not in silent}
    # One number never mixes two ways: a caption says little of a clip, and cues all that was put into it.
    for checker in (CueChecker(known), judge):
        by_cues = isinstance(checker, CueChecker)
        checked: dict[str, list[tuple[Case, Finding]]] = {}
        for policy, rows in explained.items():
            mine = [row for row in rows if (row["dataset"] in recorded) == by_cues]
            cases = cases_of(mine, captions)
            found = [Finding("unknown")] * len(cases) if checker is None else checker.check(cases)
            checked[policy] = list(zip(cases, found, strict=True))
            by = "nothing" if checker is None else checker.name
            table += [_row(policy, by, case, finding) for case, finding in checked[policy]]
        if checker is not None and any(checked.values()):
            result[checker.shows] = measure(checked, by_chance=by_cues, **drawn)
    return result, sorted(table, key=lambda row: (row["policy"], row["dataset"], row["clip_id"]))


def channels(
    predictions: Mapping[str, Rows], known: KnownCues, *, samples: int, confidence: float, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """The share of right answers by where the emotion shows: in `both` channels, or in `face` or `voice`.

    Args:
        predictions: rows of the predictions table by policy.
        known: the cues of clips; one of which this is not recorded doesn't count.
        samples: number of bootstrap draws.
        confidence: of the intervals, e.g. 0.95.
        seed: of the draws.

    Returns:
        policy -> channel -> `clips` and `WAR` with value, low and high.
    """
    random = np.random.default_rng(seed)

    def share(right: Sequence[bool]) -> Interval:
        flags = np.array(right, dtype=float)
        draws = random.binomial(len(flags), flags.mean(), samples) / len(flags)  # a bootstrap of a share
        return share_interval(flags, np.zeros(len(flags), int), float(flags.mean()), draws, confidence)

    result: dict[str, dict[str, dict[str, Any]]] = {}
    for policy, rows in predictions.items():
        found: dict[str, list[bool]] = {}
        for row in rows:
            clip = known.get(row["dataset"], {}).get(row["clip_id"])
            if clip is not None and clip.shows_in is not None:
                found.setdefault(clip.shows_in, []).append(row["predicted"] == row["label"])
        result[policy] = {
            name: {"clips": len(right), "WAR": share(right)} for name, right in sorted(found.items())
        }
    return result


def write_claims(table: Rows, path: Path) -> None:
    """Writes the claims and facts of each explanation, as `ground` returns them."""
    write_table(pa.Table.from_pylist([dict(row) for row in table], schema=SCHEMA), path)


def metric_values(result: Mapping[str, Any]) -> dict[str, float]:
    """Precision and recall as `cues/POLICY/SCOPE/KIND/precision`, for a run's metrics."""
    return {
        f"{name}/{policy}/{scope}/{kind}/{share}": cell[share]["value"]
        for name in WAYS
        for policy, scopes in result.get(name, {}).get("policies", {}).items()
        for scope, kinds in scopes.items()
        for kind, cell in kinds.items()
        for share in SHARES
        if cell[share] is not None
    }


def table_rows(result: Mapping[str, Any], scope: str = OVERALL) -> list[dict[str, str]]:
    """A row per way of checking, policy and kind, in percent, for a page or a terminal.

    Args:
        result: from `ground`.
        scope: `overall` or a data set.

    Returns:
        Rows with `checked by`, `policy`, `kind`, `claims`, and `precision` and `recall` as
        `47.4 (41.8 to 53.5), by chance 16.3`; a dash where there is no claim or no fact.
    """
    rows = []
    for name in WAYS:
        for policy, scopes in result.get(name, {}).get("policies", {}).items():
            for kind, cell in scopes.get(scope, {}).items():
                shares = {share: _percent(cell[share], cell.get(f"chance_{share}")) for share in SHARES}
                counted = {"claims": str(cell["decided"]), **shares}
                rows.append({"checked by": name, "policy": policy, "kind": kind, **counted})
    return rows


def _percent(item: Known | None, chance: float | None) -> str:
    if item is None:
        return "-"
    said = f"{100 * item['value']:.1f} ({100 * item['low']:.1f} to {100 * item['high']:.1f})"
    return said if chance is None else f"{said}, by chance {100 * chance:.1f}"


def summary(result: Mapping[str, Any], policy: str) -> str:
    """One line on a policy, for logs."""
    parts = []
    for name in WAYS:
        cell = result.get(name, {}).get("policies", {}).get(policy, {}).get(OVERALL, {}).get(ALL)
        if cell:
            said = [
                f"{share} {cell[share]['value']:.3f} ({cell[share]['low']:.3f} to {cell[share]['high']:.3f})"
                for share in SHARES
                if cell[share] is not None
            ]
            parts.append(f"by {name}: {', '.join(said)} on {cell['decided']} claims")
    return f"{policy}: " + ("; ".join(parts) or "nothing is known of the clips")


def _row(policy: str, by: str, case: Case, finding: Finding) -> dict[str, Any]:
    return {
        "policy": policy,
        "dataset": case.dataset,
        "clip_id": case.clip_id,
        "checked_by": by,
        "outcome": finding.outcome,
        "claims": [{"text": c.text, "kind": c.kind, "true": c.true} for c in finding.claims],
        "facts": [{"text": f.text, "kind": f.kind, "mentioned": f.mentioned} for f in finding.facts],
        "detail": finding.detail,
    }
