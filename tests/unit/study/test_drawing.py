"""Which clips and which items: strata, blinding, and what is known of checks and gold items."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import yaml

from erv.errors import EvaluationError, SettingsError
from erv.settings.study import StudySettings
from erv.study.candidates import Candidates, find_candidates
from erv.study.chance import Chance
from erv.study.drawing import draw
from erv.study.items import INSTRUCTION, Made, Maker
from tests.support.paths import ROOT
from tests.support.study_workspace import STUDY, prediction

RAW = yaml.safe_load((ROOT / "params.yaml").read_text())["study"] | STUDY
CHANCE = Chance.of(1, "test", {"sft": "0" * 64, "erv": "1" * 64})
CHECKS: Any = {"pair": "Choose this.", "rating": "Give it 2s."}


def settings(**changes: Any) -> StudySettings:
    return StudySettings.model_validate(RAW | changes)


def rows(policy: str, clips: int = 40) -> list[dict[str, Any]]:
    return [prediction(policy, f"{number:05d}", f"{number:064x}") for number in range(clips)]


@pytest.fixture
def candidates() -> Candidates:
    return find_candidates({policy: rows(policy) for policy in ("sft", "erv")})


def make(candidates: Candidates, **changes: Any) -> list[Made]:
    study = settings(**changes)
    maker = Maker(study, CHANCE, CHECKS, candidates.space)
    drawn = draw(candidates.clips, study, CHANCE)
    names = {clip.name for clip in drawn}
    return [*maker.main(drawn), *maker.others([clip for clip in candidates.clips if clip.name not in names])]


def test_emotions_come_evenly_and_disagreement_in_its_share(candidates: Candidates) -> None:
    drawn = draw(candidates.clips, settings(clips=16, disagreement_share=0.25), CHANCE)
    assert Counter(clip.emotion for clip in drawn) == dict.fromkeys(
        ("anger", "happiness", "sadness", "surprise"), 4
    )
    assert Counter((clip.emotion, clip.disagree) for clip in drawn if clip.disagree) == {
        (emotion, True): 1 for emotion in ("anger", "happiness", "sadness", "surprise")
    }


def test_where_a_kind_runs_out_the_other_is_taken(candidates: Candidates) -> None:
    assert sum(clip.disagree for clip in candidates.clips) == 8
    drawn = draw(candidates.clips, settings(clips=24, disagreement_share=1.0), CHANCE)
    assert sum(clip.disagree for clip in drawn) == 8


def test_a_random_draw_is_seeded(candidates: Candidates) -> None:
    study = settings(draw="random", clips=10)
    drawn = draw(candidates.clips, study, CHANCE)
    assert draw(candidates.clips[::-1], study, CHANCE) == drawn
    other = draw(candidates.clips, study, Chance.of(2, "test", {}))
    assert {clip.name for clip in drawn} != {clip.name for clip in other}


def test_more_clips_than_there_are_is_refused(candidates: Candidates) -> None:
    with pytest.raises(SettingsError, match=r"study.clips is 41, but only 40 clips were explained"):
        draw(candidates.clips, settings(clips=41), CHANCE)


def test_every_pair_and_every_policy_is_asked_about_on_each_clip(candidates: Candidates) -> None:
    made = [item for item in make(candidates) if item.item.role == "main"]
    assert Counter(item.policies for item in made) == {("erv", "sft"): 8, ("erv",): 8, ("sft",): 8}
    for item in made:
        assert sorted(item.key.policies.values()) == list(item.policies)
        for said in item.item.explanations:
            policy = item.key.policies[said.code]
            assert said.text == item.clip.said[policy].text


def test_nothing_in_an_item_tells_its_policy(candidates: Candidates) -> None:
    made = [item for item in make(candidates) if item.item.role == "main"]
    codes = [said.code for item in made for said in item.item.explanations]
    assert len(set(codes)) == len(codes), "a code stands for a policy in one item only"
    first = Counter(
        item.key.policies[item.item.explanations[0].code] for item in made if len(item.policies) == 2
    )
    assert set(first) == {"sft", "erv"}
    for item in made:
        text = item.item.model_dump_json()
        assert "mafw" not in text
        assert item.clip.clip_id not in text


def test_checks_and_gold_items_have_an_answer(candidates: Candidates) -> None:
    made = make(candidates, attention=2, gold=2)
    attention = [item for item in made if item.item.role == "attention"]
    gold = [item for item in made if item.item.role == "gold"]
    assert [item.item.kind for item in attention] == [item.item.kind for item in gold] == ["pair", "rating"]
    chosen = attention[0].item.expected
    assert chosen is not None
    assert chosen.preferred is not None
    assert attention[0].key.policies[chosen.preferred] == INSTRUCTION
    right = gold[0].item.expected
    assert right is not None
    assert right.preferred is not None
    policy = gold[0].key.policies[right.preferred]
    (foreign,) = set(gold[0].key.policies.values()) - {policy}
    other = next(clip for clip in candidates.clips if foreign == f"{policy}@{clip.name}")
    assert other.emotion != gold[0].clip.emotion
    assert other.said[policy].clear
    assert gold[0].clip.said[policy].clear
    assert {item.clip.name for item in made if item.item.role != "main"}.isdisjoint(
        item.clip.name for item in made if item.item.role == "main"
    )


def test_without_clear_explanations_there_is_no_gold() -> None:
    unclear = {policy: rows(policy) for policy in ("sft", "erv")}
    for row in [*unclear["sft"], *unclear["erv"]]:
        row["verdicts"][1]["emotion"] = "fear"
    with pytest.raises(SettingsError, match=r"study.gold asks for 2 items, but 0 are possible"):
        make(find_candidates(unclear))


def test_too_few_clips_for_practice_are_refused(candidates: Candidates) -> None:
    with pytest.raises(SettingsError, match="ask for 7 clips beside the main and gold ones, but 2 are left"):
        make(candidates, clips=34, practice=5)  # gold items take four of the six others


def test_clips_that_somebody_did_not_explain_are_left_out_and_counted() -> None:
    silent = {policy: rows(policy) for policy in ("sft", "erv")}
    for row in silent["sft"][:3]:
        row["completion"] = "anger"
    found = find_candidates(silent)
    assert len(found.clips) == 37
    assert found.left_out == {"no explanation by sft": 3}


def test_policies_that_were_asked_about_other_clips_are_refused() -> None:
    with pytest.raises(EvaluationError, match="'sft' and 'erv' were evaluated on different clips"):
        find_candidates({"sft": rows("sft"), "erv": rows("erv", 39)})
    other = rows("erv")
    other[3]["sha256"] = "f" * 64
    with pytest.raises(EvaluationError, match="clip '00003' of mafw: policies were evaluated on different"):
        find_candidates({"sft": rows("sft"), "erv": other})


def test_several_data_sets_share_one_space() -> None:
    mixed = {policy: rows(policy, 8) for policy in ("sft", "erv")}
    for table in mixed.values():
        for row in table[:4]:
            row.update(dataset="dfew", label="happy")
    found = find_candidates(mixed)
    assert found.space.name == "mafw"
    assert {(clip.label, clip.emotion) for clip in found.clips if clip.dataset == "dfew"} == {
        ("happy", "happiness")
    }
