"""The evaluations that a study is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import EvaluationError, SettingsError
from erv.evaluate.evaluate import read_predictions
from erv.files import content_digest, sha256_of_file
from erv.settings import Settings
from erv.study.candidates import explains

EVALUATIONS = Path("eval")


@dataclass(frozen=True)
class Evaluations:
    """Predictions of the policies of a study.

    Attributes:
        rows: of the predictions table, by policy.
        digests: SHA-256 of the predictions, by policy.
    """

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    digests: Mapping[str, str]


def read_evaluations(settings: Settings, entries: Mapping[str, Mapping[str, Any]]) -> Evaluations:
    """Reads what `evaluate` left of the policies that are compared.

    Args:
        settings: all of them.
        entries: of `dvc.lock`.

    Raises:
        EvaluationError: a policy was not evaluated here, or its predictions are not those in `dvc.lock`.
        SettingsError: fewer than two policies explain, and pairs are asked.
    """
    named = settings.study.policies
    rows, digests = {}, {}
    for policy in named or settings.compare.policies:
        stage, path = f"evaluate@{policy}", EVALUATIONS / policy / "predictions.parquet"
        found = read_predictions(path)
        outs = entries.get(stage, {}).get("outs") or []
        recorded = {out["path"]: out.get("md5") for out in outs}
        if recorded.get(path.as_posix()) != content_digest(path):
            raise EvaluationError(
                f"{path}: not the predictions that dvc.lock describes; run `dvc repro {stage}`"
            )
        if explains(found):
            rows[policy], digests[policy] = found, sha256_of_file(path)
        elif named:
            raise SettingsError(
                f"study.policies names {policy!r}, which explains none of its answers; leave it out"
            )
    least = 2 if "pair" in settings.study.kinds else 1
    if len(rows) < least:
        raise SettingsError(
            f"study: {len(rows)} of the policies {', '.join(named or settings.compare.policies)} explain"
            f" their answers, and pairs need {least}; evaluate another, or leave pair out of study.kinds"
        )
    return Evaluations(rows, digests)
