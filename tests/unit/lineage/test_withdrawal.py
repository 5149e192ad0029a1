"""What a list of withdrawn clips has against a version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.errors import DataError
from erv.lineage.membership import Used, VersionRoles
from erv.lineage.published import Published
from erv.lineage.withdrawal import LIST, WithdrawalGate, withdrawal_verdicts
from erv.settings import load_settings
from tests.conftest import ROOT

ROLES = VersionRoles(
    Published("emotion-policy", "3", (), {}),
    (
        Used("learned", "sft", (("mafw", "1"), ("mafw", "2"))),
        Used("learned", "grpo@erv", (("dfew", "1"), ("mafw", "1"))),
        Used("tuned", "sft", (("mafw", "3"),)),
        Used("tested", "evaluate@erv", (("mafw", "9"),)),
    ),
    (),
    (),
    (),
)


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (["mafw/2"], "learned from mafw/2 (sft)"),
        (["mafw/1"], "learned from mafw/1 (sft); learned from mafw/1 (grpo@erv)"),
        (["1"], "learned from mafw/1 (sft); learned from dfew/1, mafw/1 (grpo@erv)"),
        (["mafw/3", "mafw/9"], "was tuned on mafw/3 (sft)"),
    ],
)
def test_a_clip_that_stays_in_a_version_speaks_against_it(ids: list[str], sentence: str) -> None:
    (verdict,) = withdrawal_verdicts(ROLES, ids)
    assert verdict.text() == f"fail: withdrawn clips: data/withdrawn.txt has clips that it {sentence}"


@pytest.mark.parametrize("name", ["mafw/9", "mafw/4", "dfew/2"])
def test_another_clip_or_one_of_the_test_set_does_not(name: str) -> None:
    assert withdrawal_verdicts(ROLES, [name]) == ()


def test_many_clips_are_counted() -> None:
    clips = tuple(("mafw", str(number)) for number in range(12))
    (verdict,) = withdrawal_verdicts(
        replace(ROLES, used=(Used("learned", "sft", clips),)), ["/".join(clip) for clip in clips]
    )
    assert "mafw/3, mafw/4 and 7 more (sft)" in verdict.reason


def test_what_can_not_be_read_may_have_used_them() -> None:
    (verdict,) = withdrawal_verdicts(replace(ROLES, unread=("sft: gone",)), ["mafw/4"])
    assert verdict.text() == "can't tell: withdrawn clips: sft: gone"


def test_what_nobody_recorded_may_have_used_them() -> None:
    """An imported version has no records of its training."""
    version = replace(ROLES.version, unrecorded="what it learned from, as it is external")
    (verdict,) = withdrawal_verdicts(replace(ROLES, version=version, used=()), ["mafw/4"])
    expected = "can't tell: withdrawn clips: not recorded: what it learned from, as it is external"
    assert verdict.text() == expected


def test_without_a_clip_nothing_is_withdrawn_and_a_damaged_list_is_refused_at_once(tmp_path: Path) -> None:
    settings = load_settings(ROOT / "params.yaml")
    assert WithdrawalGate(Environment(tmp_path), settings)("1") == ()
    (tmp_path / LIST).parent.mkdir()
    (tmp_path / LIST).write_text("\n# mafw/00019 came back\n")
    assert WithdrawalGate(Environment(tmp_path), settings)("1") == ()
    (tmp_path / LIST).write_bytes(b"mafw/\xff\n")
    with pytest.raises(DataError, match="not UTF-8 text"):
        WithdrawalGate(Environment(tmp_path), settings)
