"""How far judges and the verifier agree with people, so that one knows which of them to trust.

An instrument scores an explanation twice: `fits`, whether it speaks of the clip's label (as the metric EEA
has it), and `agrees`, whether it speaks of its own answer (as EPC has it). A judge's scores are 0 or 1, the
verifier's the share of the sentences about emotions that do. Of the two explanations of a pair, an instrument
prefers the one that fits better, and neither if they fit equally.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from erv.errors import DataError
from erv.evaluate.intervals import undefined
from erv.progress import meter
from erv.study.analysis.draws import Draws
from erv.study.analysis.people import Clip, People
from erv.study.plan import Key

if TYPE_CHECKING:
    from erv.verifier.protocol import Verifier

_LOG = logging.getLogger(__name__)

VERIFIER, OTHERS = "verifier", "other raters"
# What is rated -> which score of an instrument it is compared with.
COMPARED = {"emotion": "fits", "own_answer": "agrees"}

Text = tuple[str, Clip]  # policy and clip


@dataclass(frozen=True)
class Scores:
    """What an instrument says of explanations.

    Attributes:
        fits, agrees: score by policy and clip; None where it says nothing, as where there is no answer.
    """

    fits: Mapping[Text, float | None]
    agrees: Mapping[Text, float | None]

    def of(self, name: str) -> Mapping[Text, float | None]:
        """The scores of this name."""
        return self.fits if name == "fits" else self.agrees


def read_evaluations(key: Key, evaluations: Path) -> dict[Text, Mapping[str, Any]]:
    """The rows of the predictions that the study was prepared from, by policy and clip, those of its clips.

    Raises:
        DataError: a policy was evaluated again since.
        EvaluationError: predictions are missing or damaged.
    """
    from erv.evaluate.evaluate import read_predictions
    from erv.files import sha256_of_file

    wanted = {(about.dataset, about.clip_id) for about in key.items.values()}
    found: dict[Text, Mapping[str, Any]] = {}
    for policy, digest in key.policies.items():
        path = evaluations / policy / "predictions.parquet"
        rows = read_predictions(path)
        if sha256_of_file(path) != digest:
            raise DataError(
                f"{path}: not the predictions that the study was prepared from; put them back (the dvc.lock"
                " of that time, then `dvc checkout`), or report with --without-judges"
            )
        for row in rows:
            if (row["dataset"], row["clip_id"]) in wanted:
                found[policy, (row["dataset"], row["clip_id"])] = row
    return found


def scores_of_judges(rows: Mapping[Text, Mapping[str, Any]]) -> dict[str, Scores]:
    """What each judge of the panel says, and their majority if there are several."""
    from erv.evaluate.judges.panel import MAJORITY, judges_of, read_by

    texts = list(rows)
    names = judges_of(list(rows.values()))
    found = {}
    for name in [*names, *([MAJORITY] if len(names) > 1 else [])]:
        read = read_by([rows[text] for text in texts], name)
        fits: dict[Text, float | None] = {}
        agrees: dict[Text, float | None] = {}
        for text, row in zip(texts, read, strict=True):
            fits[text] = float(row["judged"] == row["label"])
            agrees[text] = None if row["predicted"] is None else float(row["judged"] == row["predicted"])
        found[name] = Scores(fits, agrees)
    return found


def scores_of_verifier(rows: Mapping[Text, Mapping[str, Any]], verifier: Verifier) -> Scores:
    """What a verifier says."""
    from erv.answering.agreement import agreement

    fits: dict[Text, float | None] = {}
    agrees: dict[Text, float | None] = {}
    with meter("the verifier reads", len(rows), "explanations", _LOG) as shown:
        for text, row in rows.items():
            spaces = [row["dataset"]]
            fits[text] = agreement(verifier, row["completion"], row["label"], spaces)
            agrees[text] = (
                None
                if row["predicted"] is None
                else agreement(verifier, row["completion"], row["predicted"], spaces)
            )
            shown.update()
    return Scores(fits, agrees)


def agreement_with(people: People, instruments: Mapping[str, Scores], draws: Draws) -> dict[str, Any]:
    """How far each instrument agrees with people, and people with each other.

    Returns:
        Instrument -> `preference` and `ratings`. `preference`: `answers` (preferences of people, ties left
        out), `decided` (those where the instrument prefers one, too) and `same` (the share of these with the
        same preference; value, low, high; 0.5 is chance). `ratings`: what is rated -> `explanations`, and
        `tau`, Kendall's tau-b between mean rating and score (value, low, high, from draws of clips).
        The instrument `other raters` has `preference` alone: whether a rater prefers what most others prefer
        of the same item. No instrument can be expected to agree more.
    """
    found: dict[str, Any] = {
        OTHERS: {"preference": _preference(people, _what_others_prefer(people), draws), "ratings": {}}
    }
    for name, scores in instruments.items():
        preferred = [_by_scores(one.clip, one.earlier, one.later, scores) for one in people.preferences]
        found[name] = {
            "preference": _preference(people, preferred, draws),
            "ratings": {
                asked: _rank(people, asked, scores.of(kind), draws) for asked, kind in COMPARED.items()
            },
        }
    return found


def _by_scores(clip: Clip, earlier: str, later: str, scores: Scores) -> int:
    """1 if an instrument prefers the later policy's explanation, -1 for the earlier one's, 0 for neither."""
    mine, other = scores.fits.get((later, clip)), scores.fits.get((earlier, clip))
    if mine is None or other is None:
        return 0
    return (mine > other) - (mine < other)


def _what_others_prefer(people: People) -> list[int]:
    """For each preference, that of most other raters of the item: 1, -1, or 0 if there is none."""
    totals: dict[str, int] = {}
    for one in people.preferences:
        totals[one.item] = totals.get(one.item, 0) + one.outcome
    left = [totals[one.item] - one.outcome for one in people.preferences]
    return [(total > 0) - (total < 0) for total in left]


def _preference(people: People, preferred: Sequence[int], draws: Draws) -> dict[str, Any]:
    answered = [(one, said) for one, said in zip(people.preferences, preferred, strict=True) if one.outcome]
    decided = [(one, said) for one, said in answered if said]
    same = (
        draws.share(
            [float(one.outcome == said) for one, said in decided],
            [one.rater for one, _ in decided],
            [one.clip for one, _ in decided],
        )
        if decided
        else undefined()
    )
    return {"answers": len(answered), "decided": len(decided), "same": same}


def _rank(people: People, asked: str, scores: Mapping[Text, float | None], draws: Draws) -> dict[str, Any]:
    values: dict[Text, list[int]] = {}
    for one in people.ratings:
        if scores.get((one.policy, one.clip)) is not None:
            values.setdefault((one.policy, one.clip), []).append(one.values[asked])
    texts = list(values)
    means = np.array([np.mean(values[text]) for text in texts])
    mine = np.array([scores[text] for text in texts], dtype=np.float64)
    found: dict[str, Any] = {"explanations": len(texts), "tau": undefined()}
    if texts:
        times = draws.clip_weights([clip for _, clip in texts]).astype(int)
        picked = (np.repeat(np.arange(len(texts)), draw) for draw in times)
        found["tau"] = draws.percentiles(
            _tau(means, mine), np.array([_tau(means[pick], mine[pick]) for pick in picked])
        )
    return found


def _tau(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b; NaN where one of the two is constant."""
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic) if len(first) > 1 else float("nan")
