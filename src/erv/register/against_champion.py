"""Verdicts on the gates against the champion: who it was, and whether they still count.

They are decided again as soon as another version is champion, or the confidence or the draws of their
intervals are set otherwise. A version of the champion's own bundle can't be compared with it, so it has the
champion's verdicts: other serving code makes no bundle better.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from erv.register.gates import NO_CHAMPION, decide_against_champion, undecided
from erv.register.verdict import (
    CANT_TELL,
    CHAMPION,
    LINEAGE,
    PASS,
    WITHDRAWN,
    Verdict,
    gate_of,
    read_verdict,
    tells_a_verdict,
)
from erv.register.versions import EXTERNAL_TAG, GATES_TAG, HASH_TAG

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from erv.register.champion import Opponent
    from erv.register.register import Bundle
    from erv.settings import Settings


def kept_verdicts(version: ModelVersion) -> tuple[Verdict, ...] | None:
    """The verdicts that the registry has of a version; None if its gates were never decided."""
    text = version.tags.get(GATES_TAG)
    return None if text is None else tuple(map(read_verdict, json.loads(text)))


def count_against(bundle: Bundle, kept: Sequence[Verdict] | None, champion: str, settings: Settings) -> bool:
    """Whether kept verdicts say how a bundle compares with this champion, by the settings of now.

    Those that did not record by which settings they were decided don't.
    """
    known = {gate_of(verdict): verdict for verdict in kept or ()}
    mine = [known.get(gate_of(verdict)) for verdict in bundle.verdicts if verdict.is_open]
    return all(verdict is not None and verdict == _met(verdict, champion, settings) for verdict in mine)


def _met(verdict: Verdict, champion: str, settings: Settings) -> Verdict:
    """A verdict with the champion that was met, and the settings by which it was decided."""
    return replace(
        verdict,
        opponent=champion,
        confidence=settings.register_.confidence,
        samples=settings.register_.bootstrap_samples,
        seed=settings.seed,
    )


def taken_over(bundle: Bundle, kept: Sequence[Verdict] | None, whose: str) -> tuple[Verdict, ...]:
    """The verdicts of a bundle, those against the champion as they were decided for a version of it.

    Args:
        bundle: its other verdicts depend on nothing else.
        kept: the verdicts of that version; None if its gates were never decided.
        whose: its number.
    """
    if kept is None:
        return undecided(
            bundle.verdicts, f"version {whose}, the champion, has this bundle but was never gated"
        )
    known = {gate_of(verdict): verdict for verdict in kept}
    # An older erv kept no verdict where there was no champion.
    absent = {"outcome": PASS, "reason": NO_CHAMPION}
    return tuple(
        known.get(gate_of(v), replace(v, **absent)) if v.is_open else v  # type: ignore[arg-type]
        for v in bundle.verdicts
    )


def compared(bundle: Bundle, other: Opponent, settings: Settings) -> tuple[Verdict, ...]:
    """All verdicts of a bundle, with those against the champion decided now."""
    from erv.evaluate.evaluate import read_predictions

    if other.missing:
        return undecided(bundle.verdicts, other.missing)
    decided = decide_against_champion(
        bundle.verdicts,
        read_predictions(bundle.folder / "predictions.parquet"),
        other.predictions,
        samples=settings.register_.bootstrap_samples,
        confidence=settings.register_.confidence,
        seed=settings.seed,
        candidate_metrics=bundle.json("metrics.json"),
        champion_metrics=other.metrics,
    )
    return tuple(
        _met(verdict, other.version, settings) if before.is_open else verdict
        for before, verdict in zip(bundle.verdicts, decided, strict=True)
    )


def objections(
    version: ModelVersion,
    champion: ModelVersion | None,
    lineage: Verdict | None = None,
    withdrawn: Sequence[Verdict] = (),
) -> list[str]:
    """What keeps a version from becoming champion, as sentences; none if nothing does.

    Args:
        version: as the registry has it.
        champion: the present one, or None.
        lineage: the verdict on its lineage of now, which counts instead of the kept one; None if no gate asks
            for it.
        withdrawn: what the list of withdrawn clips has against it now, which counts instead of what was kept.
    """
    verdicts = present_verdicts(version, champion, lineage, withdrawn)
    return _undecided(version) + [verdict.text() for verdict in verdicts if not verdict.passed]


def present_verdicts(
    version: ModelVersion,
    champion: ModelVersion | None,
    lineage: Verdict | None,
    withdrawn: Sequence[Verdict] = (),
) -> tuple[Verdict, ...]:
    """The verdicts on a version as far as they count now; the arguments are those of `objections`."""
    now = (LINEAGE, WITHDRAWN)
    kept = tuple(verdict for verdict in kept_verdicts(version) or () if verdict.metric not in now)
    if champion is not None and champion.tags.get(HASH_TAG, "") != version.tags.get(HASH_TAG):
        number = str(champion.version)
        kept = tuple(_outdated(v, number) if _is_outdated(v, number) else v for v in kept)
    return (*kept, *([] if lineage is None else [lineage]), *withdrawn)


def is_traced(version: ModelVersion, settings: Settings) -> bool:
    """Whether the lineage of a version counts: a gate asks for it now, or did when it was published."""
    kept = any(verdict.metric == LINEAGE for verdict in kept_verdicts(version) or ())
    return settings.register_.require_lineage or kept


def unmet(sentences: Sequence[str]) -> str:
    """What objections amount to: `did not pass 2 of its gates`, or that there are none to pass."""
    if all(map(tells_a_verdict, sentences)):
        return f"did not pass {len(sentences)} of its gates"
    return "can't become champion by its gates"


def unseen(against: Sequence[str], shown: Collection[str]) -> list[str]:
    """The objections that a person, who was shown others, doesn't know.

    Why a lineage can't be told is the text of an outage, which is another each time; it counts as known.
    """
    known = set(map(_gist, shown))
    return [sentence for sentence in against if _gist(sentence) not in known]


def _gist(sentence: str) -> str:
    untold = f"{CANT_TELL}: {LINEAGE}: "
    return untold if sentence.startswith(untold) else sentence


def _undecided(version: ModelVersion) -> list[str]:
    """Why a version has no verdicts; nothing if it has some."""
    if kept_verdicts(version) is not None:
        return []
    if EXTERNAL_TAG in version.tags:
        return ["it is external, so its gates are never decided"]
    return ["its gates were never decided; `erv publish` decides those of the candidate"]


def _is_outdated(verdict: Verdict, champion: str) -> bool:
    return verdict.against == CHAMPION and verdict.opponent != champion


def _outdated(verdict: Verdict, champion: str) -> Verdict:
    """A verdict that was decided against another champion, which tells nothing about the present one."""
    than = (
        f"version {verdict.opponent}" if verdict.opponent else "no champion, or with one that was not noted"
    )
    reason = (
        f"it was compared with {than}, and version {champion} is champion now; `erv publish` compares the"
        " candidate of the present state with it"
    )
    return replace(verdict, outcome=CANT_TELL, low=None, high=None, opponent=None, reason=reason)
