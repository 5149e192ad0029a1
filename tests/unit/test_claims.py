"""What texts claim of clips, and the cues that clips truly have."""

from pathlib import Path

import pytest

from erv.claims import CHANNELS, CUE_WORDINGS, claims_in, cues_in
from erv.cues import ClipCues, planted_share, read_cues, require_cues, write_cues
from erv.errors import DataError

NOTHING: dict[str, frozenset[str]] = dict.fromkeys(CHANNELS, frozenset())
FEAR = ClipCues(
    "c1",
    {
        **NOTHING,
        "face": frozenset({"eyes_wide", "jaw_dropped"}),
        "voice": frozenset({"voice_trembling"}),
    },
    "both",
    True,
)


def test_claims_are_found_where_they_are_said() -> None:
    text = 'I see: THE EYES  ARE\twide open, and "the voice trembles". The voice trembles.'
    assert [(claim.cue, text[claim.start : claim.end]) for claim in claims_in(text)] == [
        ("eyes_wide", "THE EYES  ARE\twide open"),
        ("voice_trembling", "the voice trembles"),
        ("voice_trembling", "The voice trembles"),
    ]
    assert cues_in(text) == ("eyes_wide", "voice_trembling")
    assert claims_in("") == claims_in("He is glad.") == ()


@pytest.mark.parametrize(
    "text",
    [
        "It is not true that the voice trembles.",
        "Nobody says that the voice trembles.",
        "I don't find that the voice trembles.",
        "The voice tremblesome.",
        "It is not true that the voice trembles and the voice is loud.",
    ],
)
def test_what_is_denied_or_goes_on_as_another_word_is_no_claim(text: str) -> None:
    assert claims_in(text) == ()


def test_a_negation_elsewhere_denies_nothing() -> None:
    text = (
        "This is not fear. The glare is tense and does not waver, and the voice trembles, with no joy in it."
    )
    assert cues_in(text) == ("hard_stare", "voice_trembling")


@pytest.mark.parametrize(
    "text",
    [
        "It is not sunny, and the voice trembles.",
        "There is no smile but the voice trembles.",
        "Nothing moves; the voice trembles.",
        "The room is not bright, while the voice trembles.",
        "The person isn't happy, the voice trembles.",
        "Not only that: the voice trembles",
        "No doubt the voice trembles.",
        "Without a pause, the voice trembles.",
        "No tears here\nThe voice trembles",
        "Not a word… The voice trembles",
    ],
)
def test_a_negation_reaches_to_the_end_of_its_clause(text: str) -> None:
    assert cues_in(text) == ("voice_trembling",)


def test_every_clause_claims_its_own_cue_alone() -> None:
    for cue, (clauses, _) in CUE_WORDINGS.items():
        for clause in clauses:
            assert {claim.cue for claim in claims_in(clause)} == {cue}, clause


def test_cues_are_kept_as_they_were_written(tmp_path: Path) -> None:
    bare = ClipCues("c0", NOTHING)
    write_cues([FEAR, bare], tmp_path / "mafw.parquet")
    write_cues([], tmp_path / "dfew.parquet")
    found = read_cues(tmp_path, ["mafw", "dfew"])
    assert found == {"mafw": {"c0": bare, "c1": FEAR}, "dfew": {}}
    assert FEAR.by_channel == {"eyes_wide": "face", "jaw_dropped": "face", "voice_trembling": "voice"}
    assert planted_share(found) == 1.0, "a clip of which nothing is recorded doesn't count"
    assert planted_share({"dfew": {}}) is None
    assert FEAR.all == {"eyes_wide", "jaw_dropped", "voice_trembling"}
    require_cues(found, {"mafw": ["c1", "c0"], "dfew": []}, "the reward grounded")


def test_a_clip_without_cues_on_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"^the reward grounded has to know which cues the clips of dfew show, but 2 of them have none"
        r" on record, such as '7'; leave it out, or use sources with a cues\.parquet$",
    ):
        require_cues({"dfew": {"c1": FEAR}}, {"dfew": ["c1", "8", "7"]}, "the reward grounded")
    with pytest.raises(DataError, match=r"dvc repro ingest@mafw"):
        read_cues(tmp_path, ["mafw"])
