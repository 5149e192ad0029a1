"""Verdicts against the champion count for that champion alone, and are equal for versions of one bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion

from erv.register.against_champion import (
    count_against,
    objections,
    present_verdicts,
    taken_over,
    unmet,
    unseen,
)
from erv.register.gates import unopposed
from erv.register.register import Bundle
from erv.register.reign import NONE, How, Reign
from erv.register.succession import succession
from erv.register.verdict import Verdict
from erv.register.versions import EXTERNAL_TAG, GATES_TAG, HASH_TAG
from erv.settings import load_settings
from tests.conftest import ROOT

FLOOR = Verdict("WAR", minimum=0.5, low=0.7, high=0.8, outcome="pass")
OPEN = Verdict("EPC", "champion", 0.0)
PASSED = replace(OPEN, low=0.1, high=0.2, outcome="pass", opponent="1")
FAILED = replace(OPEN, low=-0.2, high=-0.1, outcome="fail", opponent="1")
HELD = Verdict("lineage", outcome="pass")
BROKEN = Verdict("lineage", outcome="fail", reason="1 broken")
UNCLEAR = Verdict("lineage", outcome="can't tell", reason="S3 is away")
LOOSE = Verdict("serving code", outcome="fail", reason="serving.py is in no commit")
BUNDLE = Bundle(Path(), "b", {}, (FLOOR, OPEN))
SETTINGS = load_settings(ROOT / "params.yaml")
BY = {
    "confidence": SETTINGS.register_.confidence,
    "samples": SETTINGS.register_.bootstrap_samples,
    "seed": SETTINGS.seed,
}
MET, LOST, UNMEASURED = (
    replace(verdict, **BY)  # type: ignore[arg-type]
    for verdict in (PASSED, FAILED, replace(OPEN, outcome="can't tell", opponent="1"))
)
# What is known of champions: bundle and code that answers.
A = Reign("1", bundle="a", code="x")
B2, B3 = Reign("2", bundle="b", code="x"), Reign("3", bundle="b", code="y")


def version(number: str, bundle: str, *verdicts: Verdict, gated: bool = True) -> ModelVersion:
    text = json.dumps([verdict.as_dict() for verdict in verdicts])
    tags = {HASH_TAG: bundle, **({GATES_TAG: text} if gated else {})}
    found = ModelVersion("m", number, 0)
    found._tags = tags
    return found


@pytest.mark.parametrize(
    ("kept", "counts"),
    [
        (None, False),
        ((FLOOR, MET), True),
        ((FLOOR, LOST), True),
        ((FLOOR, UNMEASURED), True),
        ((FLOOR, replace(MET, opponent="2")), False),
        ((FLOOR, replace(MET, opponent=None)), False),  # of an older erv, which noted none
        ((FLOOR,), False),  # there was no champion then
        ((FLOOR, replace(MET, minimum=-0.1)), False),  # another gate
        ((FLOOR, replace(MET, confidence=0.9)), False),
        ((FLOOR, replace(UNMEASURED, confidence=0.9)), False),
        ((FLOOR, replace(MET, samples=100)), False),
        ((FLOOR, replace(MET, seed=SETTINGS.seed + 1)), False),
        ((FLOOR, replace(MET, samples=None, seed=None)), False),  # of an older erv, which noted no draws
        ((FLOOR, replace(OPEN, outcome="can't tell", reason="S3 is away")), False),
    ],
)
def test_verdicts_count_for_the_champion_that_was_met(kept: tuple[Verdict, ...] | None, counts: bool) -> None:
    """Those of another confidence stood where no other gate changed the bundle with it."""
    assert count_against(BUNDLE, kept, "1", SETTINGS) is counts


def test_without_a_gate_against_the_champion_nothing_is_to_be_decided() -> None:
    assert count_against(replace(BUNDLE, verdicts=(FLOOR,)), None, "1", SETTINGS)


def test_other_serving_code_makes_no_bundle_better() -> None:
    assert taken_over(BUNDLE, (FLOOR, FAILED, BROKEN), "2") == (FLOOR, FAILED)
    (_, never) = taken_over(BUNDLE, None, "2")
    assert (never.outcome, never.reason) == (
        "can't tell",
        "version 2, the champion, has this bundle but was never gated",
    )
    assert taken_over(BUNDLE, (FLOOR,), "2") == unopposed(BUNDLE.verdicts)


def test_a_verdict_names_the_version_that_was_met() -> None:
    assert FAILED.text() == (
        "fail: EPC minus champion (version 1) -0.2000 to -0.1000, needs more than +0.0000"
    )
    assert unopposed((OPEN,))[0].text() == (
        "pass: EPC minus champion: there was no champion to compare with, needs more than +0.0000"
    )


def test_gates_passed_against_another_champion_keep_a_version_from_being_promoted() -> None:
    candidate = version("3", "b", FLOOR, PASSED)
    assert objections(candidate, version("1", "a")) == []
    assert objections(candidate, None) == []
    (said,) = objections(candidate, version("2", "a"))
    assert said.startswith("can't tell: EPC minus champion: it was compared with version 1, and version 2 is")
    assert "`erv publish` compares the candidate" in said
    for alone in (unopposed((OPEN,))[0], replace(PASSED, opponent=None)):
        (said,) = objections(version("3", "b", alone), version("2", "a"))
        assert "it was compared with no champion, or with one that was not noted" in said
    assert objections(version("3", "a", PASSED), version("2", "a")) == [], "they have the same bundle"
    assert objections(version("3", "b", FAILED), version("1", "a")) == [FAILED.text()]
    (said,) = objections(version("3", "b", FAILED), version("2", "a"))
    assert said.startswith("can't tell: EPC minus champion: it was compared with version 1, and version 2 is")
    (never,) = objections(version("3", "b", gated=False), None)
    assert "never decided" in never


def test_the_lineage_of_now_counts_instead_of_the_kept_one() -> None:
    candidate = version("3", "b", FLOOR, HELD)
    assert objections(candidate, None, HELD) == []
    assert objections(candidate, None, BROKEN) == ["fail: lineage: 1 broken"]
    assert objections(candidate, None, UNCLEAR) == ["can't tell: lineage: S3 is away"]
    assert present_verdicts(candidate, None, BROKEN) == (FLOOR, BROKEN)
    assert objections(version("3", "b", FLOOR, BROKEN), None, HELD) == [], "it was put back"


def test_of_a_version_without_gates_none_is_said_to_have_failed() -> None:
    candidate = version("3", "b", gated=False)
    candidate._tags[EXTERNAL_TAG] = "true"
    against = objections(candidate, None, HELD)
    assert against == ["it is external, so its gates are never decided"]
    assert unmet(against) == "can't become champion by its gates"
    said = Reign("3", "2026-11-29T10:00:00Z", "ann@box", "promote", "why", tuple(against)).text()
    assert "1 obstacle overridden:\n    it is external" in said
    against = objections(candidate, None, BROKEN)
    assert against[1:] == ["fail: lineage: 1 broken"]
    assert unmet(against) == "can't become champion by its gates"
    assert unmet([FAILED.text(), BROKEN.text()]) == "did not pass 2 of its gates"


@pytest.mark.parametrize(
    ("verdicts", "before", "champions", "reigned", "how"),
    [
        ((PASSED, HELD), None, (PASSED, HELD), [B2], "serving code"),
        ((FAILED, HELD), None, (FAILED, HELD), [B2], "serving code"),  # as it was overridden for the champion
        ((FAILED, HELD), None, None, [B2], "serving code"),  # forced without any verdict
        ((PASSED, BROKEN), None, (PASSED, HELD), [B2], None),
        ((PASSED, UNCLEAR), None, (PASSED,), [B2], None),
        ((PASSED, HELD), (PASSED, UNCLEAR), (PASSED, HELD), [B2], "serving code"),  # S3 is back
        ((PASSED, LOOSE, HELD), None, (PASSED, HELD), [B2], None),
        ((PASSED, LOOSE, HELD), None, (PASSED, LOOSE, HELD), [B2], None),  # it was forced, with other code
        ((PASSED, LOOSE, HELD), None, None, [B2], None),
        ((PASSED, HELD), (PASSED, LOOSE, HELD), (PASSED, HELD), [B2], "serving code"),  # committed by now
        ((PASSED, HELD), (PASSED, HELD), (PASSED, HELD), [B2], None),  # a person chose version 2
        (
            (PASSED, HELD),
            (PASSED, BROKEN),
            (PASSED, HELD),
            [B2, B3, B2],
            None,
        ),  # and went back from version 3
        # The same, but version 3 was deleted, and is registered again.
        ((PASSED, HELD), None, (PASSED, HELD), [B2, replace(B3, version="9"), B2], None),
        ((PASSED, HELD), None, (PASSED, HELD), [B2, Reign("9"), B2], None),  # nothing else is known of it
        ((PASSED, HELD), None, (PASSED, HELD), [B2, replace(A, version="9"), B2], "serving code"),
    ],
)
def test_what_takes_the_place_of_a_champion_with_the_same_bundle(
    verdicts: tuple[Verdict, ...],
    before: tuple[Verdict, ...] | None,
    champions: tuple[Verdict, ...] | None,
    reigned: list[Reign],
    how: How | None,
) -> None:
    found = succession(
        "3",
        bundle="b",
        code="y",
        same={"2", "3"},
        champion="2",
        reigned=reigned,
        verdicts=verdicts,
        before=before,
        champions=champions,
    )
    assert found == how


@pytest.mark.parametrize(
    ("verdicts", "champion", "reigned", "how"),
    [
        ((PASSED, HELD), "1", [A], "gates"),
        ((PASSED, HELD), None, [], "gates"),
        ((FAILED, HELD), "1", [A], None),
        ((PASSED, HELD), "1", [A, B3], None),  # it was champion, and a person or a better one ended that
        ((PASSED, HELD), "1", [A, B2], None),  # so was a version of its bundle
        ((PASSED, HELD), "1", [A, replace(B2, version="9")], None),  # also if that was deleted
        ((PASSED, HELD), "1", [A, Reign("9")], None),  # it may have been of this bundle
        ((PASSED, HELD), "1", [A, Reign("9", bundle=NONE, code=NONE)], "gates"),  # it was of none
        ((PASSED, HELD), "3", [B3], None),
    ],
)
def test_what_becomes_champion_by_its_gates(
    verdicts: tuple[Verdict, ...], champion: str | None, reigned: list[Reign], how: How | None
) -> None:
    found = succession(
        "3",
        bundle="b",
        code="y",
        same={"2", "3"},
        champion=champion,
        reigned=reigned,
        verdicts=verdicts,
        before=(PASSED, UNCLEAR),
        champions=None,
    )
    assert found == how


def test_only_the_withdrawn_clips_of_now_count() -> None:
    """When it was published, others were withdrawn."""
    kept = Verdict("withdrawn clips", outcome="fail", reason="it learned from mafw/1")
    found = version("3", "b", PASSED, kept)
    assert objections(found, version("1", "a"), HELD) == []
    now = replace(kept, reason="it learned from mafw/2")
    assert objections(found, version("1", "a"), HELD, [now]) == [
        "fail: withdrawn clips: it learned from mafw/2"
    ]


def test_what_a_person_was_not_shown_is_unseen() -> None:
    epc, lineage = "fail: EPC 0.1000, needs 0.5000 or more", "fail: lineage: 1 broken; code/a.py: changed"
    away = "can't tell: lineage: S3 is away (<object at {}>)"
    assert unseen([epc, lineage], [epc]) == [lineage]
    assert unseen([epc, lineage], [lineage, epc]) == []
    assert unseen([lineage.replace("a.py", "b.py")], [lineage]) != [], "another file"
    assert unseen([epc.replace("0.1", "0.2")], [epc]) != [], "decided anew"
    assert unseen([away.format("0x1")], [away.format("0x2")]) == []
    assert unseen([lineage], [away]) == [lineage]
