"""The report of a study: all figures, with and without the raters that failed checks, as one document."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import DataError
from erv.files import sha256_of_file, write_document
from erv.register.people import VERSION
from erv.study.analysis.checks import Rules, checks_of
from erv.study.analysis.draws import Draws
from erv.study.analysis.instruments import Scores, agreement_with
from erv.study.analysis.people import People, people_of
from erv.study.analysis.preference import position_of, preferences_of
from erv.study.analysis.reliability import reliability_of
from erv.study.analysis.said import emotions_of, ratings_of, times_of
from erv.study.answers.table import FILE, Answer, read_answers, read_slots
from erv.study.plan import Key, Study, read_key
from erv.study.wording import counted

_LOG = logging.getLogger(__name__)

FOLDER, DOCUMENT, PAGE = "report", "report.json", "report.html"
PASSED, EVERYONE = "passed", "everyone"


@dataclass(frozen=True)
class Level:
    """How intervals are made.

    Attributes:
        confidence: such as 0.95.
        samples: number of bootstrap draws.
        seed: of the draws.
    """

    confidence: float
    samples: int
    seed: int


def measure(study: Study, instruments: Mapping[str, Scores], level: Level, rules: Rules) -> dict[str, Any]:
    """All figures of a study, from the table of answers beside its plan.

    Args:
        study: the plan.
        instruments: what judges and the verifier say; none leaves their agreement out.
        level: of the intervals.
        rules: whose answers are left out.

    Returns:
        `passed`: the figures without the raters that failed checks, which count. `everyone`: those of all
        raters. Both have `answers` (to main items), `raters`, `checked` (those of them who have answered a
        check), `clips`, `preference`, `ratings`, `emotions`,
        `reliability`, `position` and `instruments`. Besides `checks`, `times`, and what they were made from.

    Raises:
        DataError: the table or the key is missing or damaged, or nobody has answered a main item yet.
    """
    key, answers = read_key(study), read_answers(study)
    people = people_of(study, key, answers, read_slots(study))
    if not people.seen:
        raise DataError(
            f"{study.folder / FILE}: nobody has answered a main item of study {study.name} yet; export again"
            f" when somebody has (`erv study status {study.name}`)"
        )
    checks = checks_of(people, rules)
    everyone = _figures(people, study, key, instruments, level)
    kept = people.without(checks["failed"])
    if checks["failed"]:
        _LOG.info("the same without %s who failed checks", counted(len(checks["failed"]), "rater"))
    passed = _figures(kept, study, key, instruments, level) if checks["failed"] else everyone
    return {
        "version": VERSION,
        "study": study.name,
        "sha256": study.sha256,
        "answers_sha256": sha256_of_file(study.folder / FILE),
        "policies": dict(key.policies),
        "confidence": level.confidence,
        "bootstrap_samples": level.samples,
        "seed": level.seed,
        "main_items": sum(item.role == "main" for item in study.items),
        "per_item": _per_item(study, answers),
        "checks": checks,
        "times": times_of(people),
        PASSED: passed,
        EVERYONE: everyone,
    }


def write_report(found: Mapping[str, Any], study: Study) -> Path:
    """Writes the document and the page beside the plan; equal answers give equal bytes. Returns the page."""
    from erv.files import write_text
    from erv.study.analysis.page import page_of

    page = study.folder / FOLDER / PAGE
    write_text(page_of(found), page)
    write_document(found, study.folder / FOLDER / DOCUMENT)
    return page


def _figures(
    people: People, study: Study, key: Key, instruments: Mapping[str, Scores], level: Level
) -> dict[str, Any]:
    about = f"{counted(len(people.seen), 'answer')} of {counted(len(people.raters), 'rater')}"
    _LOG.info("figures of %s, each on %d draws of clips and raters", about, level.samples)
    draws = Draws(
        people.raters,
        people.clips,
        samples=level.samples,
        seed=level.seed,
        confidence=level.confidence,
    )
    preference, ratings = preferences_of(people, draws), ratings_of(people, draws)
    reliability = reliability_of(people, study.emotions, draws)
    _LOG.info("how far %s agree with people", "judges and verifier" if instruments else "other raters")
    return {
        "answers": len(people.seen),
        "raters": len({one.rater for one in people.seen}),
        "checked": len({one.rater for one in people.seen} & people.checked),
        "clips": len(people.clips),
        "preference": preference,
        "ratings": ratings,
        "emotions": emotions_of(people, study, key, draws),
        "reliability": reliability,
        "position": position_of(people, draws),
        "instruments": agreement_with(people, instruments, draws),
    }


def _per_item(study: Study, answers: list[Answer]) -> dict[str, dict[str, int]]:
    """Answers per main item, by kind: the fewest, the most, and how many the plan wants."""
    counts = Counter(answer.item for answer in answers)
    wanted = {"pair": study.design.overlap, "rating": study.design.rating_overlap}
    found: dict[str, dict[str, int]] = {}
    for kind in study.kinds:
        mine = [counts[item.id] for item in study.items if (item.kind, item.role) == (kind, "main")]
        found[kind] = {
            "fewest": min(mine, default=0),
            "most": max(mine, default=0),
            "wanted": wanted[kind],
        }
    return found
