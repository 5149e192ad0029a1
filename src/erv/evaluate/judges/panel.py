"""Several judges side by side: their verdicts in the predictions, and what follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from erv.errors import EvaluationError
from erv.evaluate.judges.protocol import Judge, one_each
from erv.labels import LabelSpace

MAJORITY = "majority"
FIELD = pa.field(
    "verdicts",
    pa.list_(
        pa.struct(
            [
                pa.field("judge", pa.string(), nullable=False),
                pa.field("outcome", pa.string(), nullable=False),
                pa.field("emotion", pa.string()),
            ]
        )
    ),
)
"""The column of the predictions: one verdict per judge, in the panel's order."""


def verdicts_of(
    judges: Sequence[Judge], explanations: Sequence[str | None], space: LabelSpace
) -> list[list[dict[str, Any]]]:
    """What each judge of a panel says about each explanation.

    Args:
        judges: of the panel.
        explanations: n texts of clips of one data set.
        space: of the data set.

    Returns:
        n lists, each with `judge`, `outcome` and `emotion` for every judge, in the panel's order.

    Raises:
        EvaluationError: two judges share a name.
    """
    one_each([judge.name for judge in judges])
    found = [judge.judge(explanations, space) for judge in judges]
    return [
        [
            {"judge": judge.name, "outcome": verdict.outcome, "emotion": verdict.emotion}
            for judge, verdict in zip(judges, said, strict=True)
        ]
        for said in zip(*found, strict=True)
    ]


def headline(verdicts: Sequence[Mapping[str, Any]]) -> str | None:
    """The emotion that the first judge named; None if it named none."""
    emotion: str | None = verdicts[0]["emotion"]
    return emotion


def judges_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the judges that read these rows, in the panel's order; none for no rows.

    Raises:
        EvaluationError: the rows were read by different panels, or one was read by none.
    """
    panels = {tuple(verdict["judge"] for verdict in row.get("verdicts") or ()) for row in rows}
    if len(panels) > 1 or () in panels:
        shown = "; ".join(sorted(", ".join(panel) or "no judge" for panel in panels))
        raise EvaluationError(
            f"the predictions were read by different judges ({shown}); run `dvc repro evaluate` again"
        )
    return list(*panels)


def read_by(rows: Sequence[Mapping[str, Any]], judge: str) -> list[dict[str, Any]]:
    """The same predictions, with one judge's reading as `judged`, and whether it is `outside` the list.

    Args:
        rows: rows of the predictions table.
        judge: the name of a judge of the panel; or `majority`, the emotion that more than half of all judges
            name, and None if there is none. It is outside if more than half of all judges hear an emotion
            outside the data set's list, be it the same or not.

    Raises:
        EvaluationError: the panel has no such judge.
    """
    names = judges_of(rows)
    if names and judge not in (*names, MAJORITY):
        raise EvaluationError(
            f"no judge {judge!r} read these predictions; expected one of {', '.join(names)} or {MAJORITY}"
        )
    if judge == MAJORITY:
        return [
            {**row, "judged": majority(row["verdicts"]), "outside": _mostly_outside(row["verdicts"])}
            for row in rows
        ]
    read = []
    for row in rows:
        mine = next(said for said in row["verdicts"] if said["judge"] == judge)
        read.append({**row, "judged": mine["emotion"], "outside": mine["outcome"] == "outside"})
    return read


def majority(verdicts: Sequence[Mapping[str, Any]]) -> str | None:
    """The emotion that more than half of all judges name, those that name none included."""
    named = Counter(said["emotion"] for said in verdicts if said["emotion"] is not None)
    return next((emotion for emotion, count in named.items() if 2 * count > len(verdicts)), None)


def _mostly_outside(verdicts: Sequence[Mapping[str, Any]]) -> bool:
    count = [said["outcome"] for said in verdicts].count("outside")
    return 2 * count > len(verdicts)


def require_replies(rows: Sequence[Mapping[str, Any]], most: float) -> None:
    """Stops if a judge gave no usable reply about many explanations.

    What it failed to read contradicts nothing, so a judge that fails makes a policy look consistent.

    Args:
        rows: rows of the predictions table.
        most: the largest share of the rows that may have `failed`, `evaluate.max_failed_share`.

    Raises:
        EvaluationError: a judge failed more often.
    """
    for judge, counts in outcomes(rows).items():
        failed = counts.get("failed", 0)
        if failed > most * len(rows):
            raise EvaluationError(
                f"judge {judge} gave no usable reply about {failed} of {len(rows)} explanations, more than"
                f" evaluate.max_failed_share={most:g} allows; see the log for its replies, then run again:"
                " usable replies are kept"
            )


def outcomes(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """The number of verdicts by judge and outcome."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in judges_of(rows)}
    for row in rows:
        for said in row["verdicts"]:
            counts[said["judge"]][said["outcome"]] += 1
    return {name: dict(sorted(count.items())) for name, count in counts.items()}


def disagreements(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The clips on which two judges say different things, those that split the panel most first.

    Outcomes count: a judge that names no emotion says something else than one that does. `agreement` leaves
    such explanations out.

    Args:
        rows: rows of the predictions table.

    Returns:
        For each such clip: dataset, clip_id, label, predicted, said (the emotion by judge, or its outcome in
        brackets) and readings (how many different ones there are).
    """
    found = []
    for row in rows:
        said = {item["judge"]: item["emotion"] or f"({item['outcome']})" for item in row["verdicts"]}
        readings = len(set(said.values()))
        if readings > 1:
            kept = {name: row[name] for name in ("dataset", "clip_id", "label", "predicted")}
            found.append({**kept, "said": said, "readings": readings})
    return sorted(found, key=lambda item: (-item["readings"], item["dataset"], item["clip_id"]))
