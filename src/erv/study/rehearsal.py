"""A study with simulated raters, from invitations to the report, and what it finds of what was planted."""

from __future__ import annotations

import shutil
from pathlib import Path

from erv.files import remove, scratch_folder
from erv.study.analysis.checks import Rules
from erv.study.analysis.report import DOCUMENT, FOLDER, PAGE, PASSED, Level, measure, write_report
from erv.study.answers.connection import Answerbase
from erv.study.answers.database import Database
from erv.study.answers.table import write_answers
from erv.study.plan import KEY, PLAN, Study, read_key, read_study
from erv.study.simulation import Model, simulate


def rehearse(
    study: Study, folder: Path, model: Model, *, raters: int | None, seed: int, level: Level
) -> list[str]:
    """Simulates raters in a copy of a study.

    Args:
        study: the plan.
        folder: for the copy; what is in it is replaced.
        model: what raters prefer.
        raters: how many; None for all slots.
        seed: of everything random.
        level: of the intervals.

    Returns:
        What was planted and what was found, a sentence each.

    Raises:
        SettingsError: the model doesn't fit the study, or it has fewer slots.
    """
    with scratch_folder(folder) as work:
        inside = work / study.name
        inside.mkdir()
        for path in (study.folder / PLAN, study.folder / KEY, *sorted(study.folder.glob("extension-*.json"))):
            shutil.copyfile(path, inside / path.name)
        copy = read_study(inside)
        base = Answerbase(f"sqlite:///{inside / 'answers.db'}")
        try:
            count = len(copy.assignments) if raters is None else raters
            simulate(base, copy, read_key(copy), model, raters=count, seed=seed)
            write_answers(Database(base, copy).log(), copy)
        finally:
            base.close()
        found = measure(copy, {}, level, Rules())
        write_report(found, copy)
        remove(folder)
        inside.replace(folder)
    lines = []
    for pair, item in found[PASSED]["preference"]["pairs"].items():
        later, earlier = next(
            (one, other) for one in model.strengths for other in model.strengths if pair == f"{one}-{other}"
        )
        planted = model.share(later, earlier)
        lines.append(_line(f"{later} over {earlier}", planted, item["share"]))
    lines.append(_line("alpha of emotions", model.alpha, found[PASSED]["reliability"]["emotion"]["alpha"]))
    lines.append(f"{folder / FOLDER / PAGE} (figures: {DOCUMENT})")
    return lines


def _line(what: str, planted: float, found: dict[str, float | None]) -> str:
    value, low, high = (found[end] for end in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return f"{what}: planted {planted:.3f}, not found: too few answers"
    word = "inside" if low <= planted <= high else "outside"
    return f"{what}: planted {planted:.3f}, found {value:.3f} ({low:.3f} to {high:.3f}), {word} the interval"
