"""Gates on what people prefer, decided by the report of a study (`erv study report`).

Such a report is made after a candidate is evaluated, and raters take days. So these gates are no part of
the bundle: each publication decides them by the report that is there then. A report counts only if it is
about the candidate's own predictions and the present ones of the policy that it is compared with, if no
answers came since, and if it leaves out raters by the rules of the section `study`, which everybody can read:
a report without those who dissent would decide anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import RegistryError
from erv.files import sha256_of_file
from erv.register.gates import judged
from erv.register.verdict import CANT_TELL, Verdict
from erv.settings.register import PREFERENCE

if TYPE_CHECKING:
    from erv.register.register import Bundle
    from erv.settings import Settings

STUDIES, EVALUATIONS = Path("studies"), Path("eval")
LEAST_RATERS = 5  # with fewer, an interval says little about other people
VERSION = 2  # of the report


def decided_by_people(verdicts: Sequence[Verdict], bundle: Bundle, settings: Settings) -> tuple[Verdict, ...]:
    """The verdicts, of which those on what people prefer are decided by the reports of studies.

    Args:
        verdicts: on a candidate.
        bundle: of the candidate.
        settings: say which policy it is, and how intervals are made.

    Raises:
        RegistryError: a report is there and is none.
    """
    return tuple(
        _decided(verdict, bundle, settings) if verdict.metric == PREFERENCE else verdict
        for verdict in verdicts
    )


def _decided(verdict: Verdict, bundle: Bundle, settings: Settings) -> Verdict:
    folder = STUDIES / str(verdict.study)
    path = folder / "report" / "report.json"
    if not path.is_file():
        return _untold(verdict, f"there is no report of study {verdict.study}")
    found = _read(path)
    if why := _unusable(found, verdict, folder, bundle, settings):
        return _untold(verdict, why)
    candidate, against = settings.register_.policy, str(verdict.against)
    figures = found["passed"]
    pairs = figures["preference"]["pairs"]
    if f"{candidate}-{against}" in pairs:
        pair, net = pairs[f"{candidate}-{against}"], pairs[f"{candidate}-{against}"]["net"]
    elif f"{against}-{candidate}" in pairs:
        pair, other = pairs[f"{against}-{candidate}"], pairs[f"{against}-{candidate}"]["net"]
        net = {"low": None, "high": None}
        if other["low"] is not None and other["high"] is not None:
            net = {"low": -other["high"], "high": -other["low"]}
    else:
        return _untold(
            verdict, f"study {verdict.study} has no answers that compare {candidate} with {against}"
        )
    if pair["checked"] < LEAST_RATERS:
        return _untold(
            verdict,
            f"study {verdict.study} has {pair['checked']} raters that passed its checks, fewer than"
            f" {LEAST_RATERS}",
        )
    said = _in_words(found["checks"]["rules"], len(found["checks"]["failed"]))
    return judged(replace(verdict, reason="", rules=said), net, found["confidence"])


def _in_words(rules: Mapping[str, Any], left_out: int) -> str:
    by_hand = f", without {', '.join(rules['without'])}" if rules["without"] else ""
    raters = "rater" if left_out == 1 else "raters"
    return (
        f"{left_out} {raters} left out by study.rules (attention checks failed: {rules['failed_attention']}"
        f" at most, gold items as expected: {100 * rules['gold_share']:g}%{by_hand})"
    )


def _unusable(
    found: Mapping[str, Any], verdict: Verdict, folder: Path, bundle: Bundle, settings: Settings
) -> str:
    """Why a report decides nothing about this candidate; empty if it does."""
    study, register = verdict.study, settings.register_
    made = (found["confidence"], found["bootstrap_samples"], found["seed"])
    if made != (register.confidence, register.bootstrap_samples, settings.seed):
        return f"the report of study {study} has intervals of other settings; run `erv study report {study}`"
    wanted = settings.study.rules
    without = sorted(set(wanted.without) & set(found["checks"]["raters"]))
    if found["checks"]["rules"] != {
        "failed_attention": wanted.failed_attention,
        "gold_share": wanted.gold_share,
        "without": without,
    }:
        return (
            f"the report of study {study} leaves out raters by other rules than study.rules; run `erv study"
            f" report {study}` without options, or change study.rules"
        )
    answers = folder / "answers.parquet"
    if not answers.is_file() or sha256_of_file(answers) != found["answers_sha256"]:
        return f"the answers to study {study} are not those of its report; run `erv study report {study}`"
    for policy, path in (
        (register.policy, bundle.folder / "predictions.parquet"),
        (str(verdict.against), EVALUATIONS / str(verdict.against) / "predictions.parquet"),
    ):
        if policy not in found["policies"]:
            return f"study {study} is not about {policy}"
        if not path.is_file() or sha256_of_file(path) != found["policies"][policy]:
            return f"study {study} is about other predictions of {policy} than the present ones"
    return ""


def _untold(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, outcome=CANT_TELL, low=None, high=None, confidence=None, reason=reason)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found["version"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise RegistryError(
            f"{path}: not a report of a study ({error}); run `erv study report {path.parents[1].name}`"
        ) from None
    if version != VERSION:
        raise RegistryError(
            f"{path}: has version {version!r}, expected {VERSION}; run `erv study report"
            f" {path.parents[1].name}`"
        )
    return dict(found)
