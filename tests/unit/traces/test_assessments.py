"""Truth and readings of a clip as MLflow's assessments."""

from __future__ import annotations

from typing import Any

import pytest

from erv.settings.judges import EmbeddingJudge, LexicalJudge, LocalJudge, OpenAIJudge
from erv.traces.assessments import CHAT_JUDGES, assess
from erv.traces.writing import trace_id_of

ENDPOINT = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1", "api_key_env": None}
JUDGES = [
    LexicalJudge(kind="lexical"),
    EmbeddingJudge(kind="embedding"),
    EmbeddingJudge(kind="embedding", model="other"),
    OpenAIJudge.model_validate(ENDPOINT),
    OpenAIJudge.model_validate({**ENDPOINT, "mode": "official"}),
    LocalJudge.model_validate({"kind": "local", "model": "judge"}),
]


def row(predicted: str | None, *said: tuple[str, str, str | None]) -> dict[str, Any]:
    return {
        "dataset": "dfew",
        "clip_id": "1",
        "label": "happy",
        "predicted": predicted,
        "verdicts": [{"judge": judge, "outcome": o, "emotion": emotion} for judge, o, emotion in said],
    }


def found(predicted: str | None, *said: tuple[str, str, str | None]) -> dict[str, Any]:
    return {item.name: item for item in assess(row(predicted, *said), "run", "tr-1")}


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
def test_the_source_is_what_kind_of_judge_it_is(judge: Any) -> None:
    source = found("happy", (judge.name, "named", "happy"))[judge.name].source
    assert source.source_type == ("LLM_JUDGE" if judge.kind in CHAT_JUDGES else "CODE")
    assert source.source_id == judge.name


@pytest.mark.parametrize(
    ("outcome", "emotion", "value", "rationale"),
    [
        ("named", "angry", "angry", "The explanation is read as angry, which is the answer."),
        ("named", "sad", "sad", "The explanation is read as sad; the answer is angry."),
        ("silent", None, "silent", "No emotion stands out in the explanation."),
        (
            "outside",
            None,
            "outside",
            "The explanation names an emotion that is not in the space of dfew.",
        ),
        (
            "unreadable",
            None,
            "unreadable",
            "The explanation is in a language or in words that the judge can't read.",
        ),
        ("failed", None, "failed", "The judge gave no usable reply."),
    ],
)
def test_readings(outcome: str, emotion: str | None, value: str, rationale: str) -> None:
    said = found("angry", ("lexical", outcome, emotion))
    assert (said["lexical"].value, said["lexical"].rationale) == (value, rationale)
    assert said["truth"].value == "happy"
    assert said["right"].value is False
    assert ("consistent" in said) == (outcome in ("named", "outside"))


def test_consistent_is_what_the_first_judge_hears() -> None:
    said = found("happy", ("embedding", "named", "happy"), ("lexical", "named", "sad"))
    assert (said["right"].value, said["consistent"].value) == (True, True)
    said = found("happy", ("lexical", "named", "sad"), ("embedding", "named", "happy"))
    assert (said["right"].value, said["consistent"].value) == (True, False)
    assert said["consistent"].source.source_id == "lexical"
    said = found("happy", ("lexical", "outside", None), ("embedding", "named", "happy"))
    assert said["consistent"].value is False, "as inconsistency counts it"


def test_without_an_answer() -> None:
    said = found(None, ("lexical", "named", "sad"))
    assert said["right"].value is False
    assert said["right"].rationale == "The truth is happy; the completion has no answer that counts."
    assert "consistent" not in said


def test_ids_follow_from_the_row_and_its_run() -> None:
    one, other = row("happy", ("lexical", "named", "sad")), row("happy", ("lexical", "silent", None))
    ids = {trace_id_of(one, "a"), trace_id_of(one, "b"), trace_id_of(other, "a")}
    assert len(ids) == 3
    assert trace_id_of(dict(one), "a") in ids
    assessments = assess(one, "a", "tr-1")
    assert [item.assessment_id for item in assess(one, "a", "tr-1")] == [
        item.assessment_id for item in assessments
    ]
    assert len({item.assessment_id for item in assessments}) == len(assessments)
