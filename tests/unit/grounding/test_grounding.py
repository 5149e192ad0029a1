"""Claims against recorded cues: what is true, what is left out, and how sure the shares are."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest

from erv.claims import CHANNEL_OF, CUE_WORDINGS
from erv.cues import ClipCues, KnownCues
from erv.evaluate.score_intervals import share_score
from erv.grounding.claims import Case, Claim, CueChecker, Fact, Finding, cases_of
from erv.grounding.grounding import channels, ground, metric_values, summary, table_rows, write_claims
from erv.grounding.measure import chance, measure
from erv.prompts import format_completion

TRUTH = {"face": frozenset({"smile", "eyes_crinkled"}), "voice": frozenset({"voice_fast"})}
DRAWN = {"samples": 400, "confidence": 0.95, "seed": 0}


def says(*cues: str) -> str:
    return " ".join(f"{CUE_WORDINGS[cue][0][0].capitalize()}, so it seems." for cue in cues)


def known(count: int = 40, **changes: frozenset[str]) -> KnownCues:
    clips = [f"{number:05d}" for number in range(count)]
    return {"mafw": {clip: ClipCues(clip, TRUTH | changes, "both") for clip in clips}}


def rows(*said: str | None, dataset: str = "mafw", answer: str = "happiness") -> list[dict]:
    return [
        {
            "dataset": dataset,
            "clip_id": f"{number:05d}",
            "label": "happiness",
            "predicted": answer,
            "completion": "" if text is None else format_completion(text, answer),
        }
        for number, text in enumerate(said)
    ]


def test_an_explanation_is_compared_with_the_cues_of_its_clip():
    checker = CueChecker(known(3))
    found, silent, unknown = checker.check(
        [
            Case("mafw", "00000", says("smile", "voice_loud")),
            Case("mafw", "00001", None),
            Case("mafw", "09999", says("smile")),
        ]
    )
    assert found.claims == (Claim("smile", "face", True), Claim("voice_loud", "voice", False))
    assert found.facts == (
        Fact("eyes_crinkled", "face", False),
        Fact("smile", "face", True),
        Fact("voice_fast", "voice", False),
    )
    assert (silent.outcome, len(silent.facts), silent.claims) == ("silent", 3, ())
    assert unknown == Finding("unknown")


def test_words_are_a_kind_where_a_source_records_them():
    spoken = frozenset({"voice_halting"})  # a cue whose wording is known
    (finding,) = CueChecker({"own": {"a": ClipCues("a", {"words": spoken})}}).check(
        [Case("own", "a", says("voice_halting"))]
    )
    assert finding.claims == (Claim("voice_halting", "words", True),)
    cells = measure({"p": [(Case("own", "a", ""), finding)]}, by_chance=True, **DRAWN)["policies"]["p"]["own"]
    assert set(cells) == {"all", "words"}, "no cell for a kind that nobody claims or knows"


def test_shares_by_policy_data_set_and_kind():
    said = {"sft": [says("smile", "voice_loud")] * 40, "erv": [says("smile", "voice_fast")] * 40}
    result, _ = ground(
        {name: rows(*texts) for name, texts in said.items()}, known(), captions={}, judge=None, **DRAWN
    )
    sft, erv = (result["cues"]["policies"][name]["mafw"] for name in said)
    counts = ("true", "decided", "undecided", "mentioned", "facts")
    assert [sft["all"][name] for name in counts] == [40, 80, 0, 40, 120]
    assert [erv["voice"][name] for name in counts] == [40, 40, 0, 40, 40]
    assert sft["all"]["precision"]["value"] == 0.5
    assert sft["all"]["recall"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert sft["voice"]["recall"]["value"] == 0.0
    assert erv["all"]["precision"]["value"] == 1.0
    assert erv["all"]["recall"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert erv["all"]["precision"]["low"] == pytest.approx(share_score([40], [40], 0.95)[0], abs=1e-6)
    assert result["cues"]["policies"]["erv"]["overall"] == erv
    difference = result["cues"]["differences"]["erv-sft"]["mafw"]
    assert difference["voice"]["precision"]["value"] == 1.0
    assert difference["face"]["precision"] == {"value": 0.0, "low": -difference["face"]["precision"]["high"],
                                               "high": difference["face"]["precision"]["high"]}  # fmt: skip
    assert difference["face"]["precision"]["high"] > 0, "equal answers are not certainty"
    assert metric_values(result)["cues/sft/mafw/all/precision"] == 0.5
    assert "sft: by cues: precision 0.500" in summary(result, "sft")
    table = {(row["policy"], row["kind"]): row for row in table_rows(result)}
    assert set(table) == set(itertools.product(said, ("all", "face", "voice")))
    assert table["sft", "all"]["claims"] == "80"
    assert table["sft", "all"]["precision"].startswith("50.0 (")
    assert table["sft", "all"]["precision"].endswith("), by chance 50.0"), "all clips are alike here"


def test_intervals_draw_clips_and_not_claims():
    """Claims of a clip that stand or fall together are not independent evidence."""
    random = np.random.default_rng(0)
    true = random.random(60) < 0.6

    def finding(number: int, copies: int) -> Finding:
        return Finding("checked", tuple(Claim(str(i), "face", bool(true[number])) for i in range(copies)))

    def width(copies: int) -> float:
        pairs = [(Case("mafw", f"{n:03d}", ""), finding(n, copies)) for n in range(60)]
        cell = measure({"p": pairs}, by_chance=False, samples=2000, confidence=0.95, seed=0)
        item = cell["policies"]["p"]["mafw"]["face"]["precision"]
        assert item["value"] == pytest.approx(true.mean(), abs=1e-6)
        return item["high"] - item["low"]

    assert width(1) == pytest.approx(width(5), rel=1e-6)
    assert width(1) == pytest.approx(2 * 1.96 * np.sqrt(0.6 * 0.4 / 60), rel=0.15)


def test_a_difference_is_paired():
    """Both policies are right on the same clips but for 24: a bootstrap of each alone would be wider."""
    random = np.random.default_rng(1)
    first = random.random(200) < 0.5
    second = first.copy()
    second[np.flatnonzero(~first)[:24]] = True

    def pairs(flags: np.ndarray) -> list[tuple[Case, Finding]]:
        return [
            (Case("mafw", f"{n:03d}", ""), Finding("checked", (Claim("a", "face", bool(flag)),)))
            for n, flag in enumerate(flags)
        ]

    found = measure({"a": pairs(first), "b": pairs(second)}, by_chance=False, **DRAWN)
    item = found["differences"]["b-a"]["mafw"]["face"]["precision"]
    assert item["value"] == pytest.approx(0.12)
    assert 0.06 < item["low"] < 0.12 < item["high"] < 0.18


def test_chance_is_what_explanations_of_other_clips_would_reach():
    random = np.random.default_rng(2)
    cues = ["smile", "smirk", "voice_loud", "voice_fast", "voice_slow"]
    pairs = []
    for number, dataset in itertools.product(range(12), ("mafw", "dfew")):
        said, true = (sorted(random.choice(cues, 2, replace=False)) for _ in range(2))
        claims = tuple(Claim(cue, CHANNEL_OF[cue], cue in true) for cue in said)
        facts = tuple(Fact(cue, CHANNEL_OF[cue], cue in said) for cue in true)
        pairs.append((Case(dataset, f"{number:02d}", ""), Finding("checked", claims, facts)))
    hits = [
        claim.text in {fact.text for fact in other.facts}
        for (case, finding), (elsewhere, other) in itertools.permutations(pairs, 2)
        if case.dataset == elsewhere.dataset
        for claim in finding.claims
    ]
    assert chance(pairs, "all") == pytest.approx(
        {"chance_precision": np.mean(hits), "chance_recall": np.mean(hits)}, abs=1e-6
    )


def test_an_empty_explanation_mentions_nothing_of_what_is_there():
    result, _ = ground({"p": rows(None, *[says("smile")] * 3)}, known(), captions={}, judge=None, **DRAWN)
    cell = result["cues"]["policies"]["p"]["mafw"]["all"]
    assert (cell["decided"], cell["mentioned"], cell["facts"]) == (3, 3, 12)
    assert result["cues"]["outcomes"]["p"]["mafw"]["silent"] == 1
    nothing, _ = ground({"p": rows(None, None)}, known(), captions={}, judge=None, **DRAWN)
    assert nothing["cues"]["policies"]["p"]["mafw"]["all"]["precision"] is None
    assert nothing["cues"]["policies"]["p"]["mafw"]["all"]["recall"]["value"] == 0.0
    assert table_rows(nothing)[0]["precision"] == "-"


def test_where_nothing_is_known_nothing_is_measured_and_that_is_said(tmp_path):
    result, table = ground({"p": rows(says("smile"))}, {}, captions={}, judge=None, **DRAWN)
    assert result == {"judge": None, "channels": {"p": {}}}
    assert summary(result, "p") == "p: nothing is known of the clips"
    assert [(row["outcome"], row["checked_by"]) for row in table] == [("unknown", "nothing")]
    write_claims(table, tmp_path / "claims.parquet")
    assert pq.read_table(tmp_path / "claims.parquet").num_rows == 1


def test_cues_and_captions_are_never_one_number():
    class Reads:
        name, shows = "openai:m", "captions"

        def check(self, cases):
            assert [case.caption for case in cases] == ["She smiles.", None]
            return [
                Finding("checked", (Claim("smile", "face", True), Claim("tears", "face", None))),
                Finding("unknown"),
            ]

    both = [*rows(says("smile")), *rows("She smiles.", "She weeps.", dataset="dfew")]
    captions = {("dfew", "00000"): "She smiles.", ("mafw", "00000"): "never read, since the cues are known"}
    result, table = ground({"p": both}, known(1), captions=captions, judge=Reads(), **DRAWN)
    assert set(result["cues"]["policies"]["p"]) == {"overall", "mafw"}
    assert set(result["captions"]["policies"]["p"]) == {"overall", "dfew"}
    cell = result["captions"]["policies"]["p"]["dfew"]["all"]
    assert (cell["true"], cell["decided"], cell["undecided"]) == (1, 1, 1)
    assert "chance_precision" not in cell
    assert result["captions"]["outcomes"]["p"]["overall"]["unknown"] == 1
    assert [row["checked_by"] for row in table] == ["openai:m", "openai:m", "cues"]


def test_answers_are_split_by_where_the_emotion_shows():
    clips = [f"{n:05d}" for n in range(40)]
    heard = {clip: ClipCues(clip, TRUTH, "voice" if int(clip) < 10 else "both") for clip in clips}
    answered = [*rows(*["a"] * 10, answer="fear"), *rows(*["a"] * 40)[10:]]
    found = channels({"p": answered}, {"mafw": heard}, **DRAWN)["p"]
    assert {name: (item["clips"], item["WAR"]["value"]) for name, item in found.items()} == {
        "both": (30, 1.0), "voice": (10, 0.0)
    }  # fmt: skip
    assert found["voice"]["WAR"]["high"] == pytest.approx(share_score([0], [10], 0.95)[1], abs=1e-6)


def test_cases_take_explanations_and_captions():
    (case,) = cases_of(rows("A smile."), {("mafw", "00000"): "She smiles."})
    assert case == Case("mafw", "00000", "A smile.", "She smiles.")
