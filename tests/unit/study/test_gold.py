"""Gold items: what an attentive rater must say, and what nobody can know from another item."""

from __future__ import annotations

import itertools

import pytest

from erv.errors import SettingsError
from erv.labels import LabelSpace
from erv.settings.study import StudySettings
from erv.study.candidates import Candidate, Said
from erv.study.chance import Chance
from erv.study.items import Made, Maker
from tests.support.paths import ROOT


def clip(number: int, emotion: str) -> Candidate:
    said = {name: Said(f"{name} about {number}", emotion, True) for name in ("erv", "sft")}
    return Candidate("mafw", f"{number:03d}", emotion, emotion, None, said, False)


def made(clips: list[Candidate], space: str = "mafw", seed: int = 1, **changes: object) -> list[Made]:
    from erv.settings import load_settings

    known = load_settings(ROOT / "params.yaml").study
    settings: StudySettings = known.model_copy(update=changes)
    chance = Chance.of(seed, "gold", {"erv": "0", "sft": "1"})
    checks = {"pair": "Choose this.", "rating": "Give a 2."}
    return Maker(settings, chance, checks, LabelSpace.load(space)).others(clips)


def gold_of(items: list[Made]) -> list[tuple[str, str]]:
    """Own clip and foreign clip of each gold item."""
    return [
        (one.clip.clip_id, next(name for name in one.key.policies.values() if "@" in name)[-3:])
        for one in items
        if one.item.role == "gold"
    ]


def test_a_wrong_explanation_has_no_part_of_a_compound_emotion() -> None:
    """Who prefers `anger` to `anger_disgust` for an angry clip is right, and so is who doesn't."""
    names = ["anger", "anger_disgust", "disgust", "sadness"]
    space = LabelSpace.load("mafw_compound")
    clips = [clip(number, names[number % 4]) for number in range(24)]
    emotion = {one.clip_id: one.emotion for one in clips}
    for seed in range(8):
        pairs = gold_of(made(clips, "mafw_compound", seed, practice=0, attention=0, gold=3))
        assert len(pairs) == 3
        assert not any(space.share_an_emotion(emotion[own], emotion[other]) for own, other in pairs)
    with pytest.raises(SettingsError, match=r"study\.gold asks for 1 items, but 0 are possible"):
        made([clip(0, "anger"), clip(1, "anger_disgust")], "mafw_compound", practice=0, attention=0, gold=1)


def test_nobody_reads_an_explanation_of_a_gold_item_beside_its_own_clip() -> None:
    clips = [clip(number, ("anger", "sadness")[number % 2]) for number in range(14)]
    for seed in range(8):
        items = made(clips, seed=seed, practice=3, attention=3, gold=4)
        foreign = {other for _, other in gold_of(items)}
        shown = [one.clip.clip_id for one in items]
        assert len(set(shown)) == len(shown) == 10
        assert len(foreign) == 4
        assert foreign.isdisjoint(shown)
        texts = itertools.chain.from_iterable(
            one.item.explanations for one in items if one.item.role == "gold"
        )
        assert len({said.text for said in texts if said.text.split()[-1].zfill(3) in foreign}) == 4
    with pytest.raises(SettingsError, match=r"but 5 are left \(a gold item takes two\)"):
        made(clips[:13], practice=3, attention=3, gold=4)
    again = [one.item for one in made(list(reversed(clips)), practice=3, attention=3, gold=4)]
    assert again == [one.item for one in made(clips, practice=3, attention=3, gold=4)]
