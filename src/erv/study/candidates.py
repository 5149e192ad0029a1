"""The clips that people can be asked about: evaluated with every policy, and explained by each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.judges.panel import disagreements
from erv.labels import LabelSpace
from erv.prompts import parse_completion

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """What a policy said about a clip.

    Attributes:
        text: its explanation.
        answer: its answer as written; empty if there is none.
        clear: whether the answer is right and every judge heard it in the explanation.
    """

    text: str
    answer: str
    clear: bool


@dataclass(frozen=True)
class Candidate:
    """A clip that people can be asked about.

    Attributes:
        dataset: its data set.
        clip_id: its id there.
        label: its label in the data set's space.
        emotion: its label in the study's space.
        sha256: of its content; None in predictions of an older erv.
        said: what each policy said.
        disagree: whether judges say different things about one of the explanations.
    """

    dataset: str
    clip_id: str
    label: str
    emotion: str
    sha256: str | None
    said: Mapping[str, Said]
    disagree: bool

    @property
    def name(self) -> str:
        """Data set and clip."""
        return f"{self.dataset}/{self.clip_id}"


@dataclass(frozen=True)
class Candidates:
    """All that people can be asked about.

    Attributes:
        space: the label space of the study.
        clips: by data set and clip.
        left_out: how many clips were left out, by reason.
    """

    space: LabelSpace
    clips: tuple[Candidate, ...]
    left_out: Mapping[str, int]


def find_candidates(predictions: Mapping[str, Sequence[Row]]) -> Candidates:
    """Looks for the clips.

    Args:
        predictions: rows of the predictions table by policy.

    Raises:
        EvaluationError: the policies were evaluated on different clips, or on other contents of the same.
        DataError: the label spaces of the data sets have no map to one of them.
    """
    by_policy = {policy: {_key(row): row for row in rows} for policy, rows in predictions.items()}
    first, *others = by_policy
    for other in others:
        if by_policy[first].keys() != by_policy[other].keys():
            raise EvaluationError(
                f"policies {first!r} and {other!r} were evaluated on different clips; run"
                " `dvc repro evaluate`"
            )
    space, to_space = _common_space([dataset for dataset, _ in by_policy[first]])
    apart = {_key(item) for rows in predictions.values() for item in disagreements(rows)}
    clips, left_out = [], Counter[str]()
    for key in sorted(by_policy[first]):
        rows = {policy: table[key] for policy, table in by_policy.items()}
        row = rows[first]
        if len({item["sha256"] for item in rows.values()}) > 1:
            raise EvaluationError(
                f"clip {key[1]!r} of {key[0]}: policies were evaluated on different contents of it; run"
                " `dvc repro evaluate`"
            )
        said = {policy: _said(item) for policy, item in rows.items()}
        emotion = to_space[row["dataset"]](row["label"])
        if emotion is None:
            left_out[f"{row['label']} of {row['dataset']} has no counterpart in {space.name}"] += 1
            continue
        silent = [policy for policy, one in said.items() if one is None]
        if silent:
            left_out[f"no explanation by {silent[0]}"] += 1
            continue
        kept = {policy: one for policy, one in said.items() if one is not None}
        clips.append(Candidate(*key, row["label"], emotion, row["sha256"], kept, key in apart))
    return Candidates(space, tuple(clips), dict(sorted(left_out.items())))


def explains(rows: Sequence[Row]) -> bool:
    """Whether a policy explains at least some of its answers."""
    return any(_said(row) is not None for row in rows)


def _said(row: Row) -> Said | None:
    parsed = parse_completion(row["completion"])
    if not parsed.explanation:
        return None
    heard = {verdict["emotion"] for verdict in row["verdicts"]}
    clear = row["predicted"] == row["label"] and heard == {row["label"]}
    return Said(parsed.explanation, parsed.answer or "", clear)


def _key(row: Row) -> tuple[str, str]:
    return row["dataset"], row["clip_id"]


def _common_space(
    datasets: Sequence[str],
) -> tuple[LabelSpace, dict[str, Callable[[str | None], str | None]]]:
    """The data set's own space if there is one only, else MAFW's, into which evaluation maps all others."""
    names = sorted(set(datasets))
    spaces = {name: LabelSpace.load(name) for name in names}
    same = {space.name for space in spaces.values()}
    space = spaces[names[0]] if len(same) == 1 else LabelSpace.load("mafw")
    return space, {name: own.to(space) for name, own in spaces.items()}
