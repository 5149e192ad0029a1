"""Judges that are asked in words, behind real servers: scripted ones, and `transformers serve`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from erv.chat import ChatError
from erv.errors import SettingsError
from erv.evaluate.judges.build import build_judges
from erv.evaluate.judges.chat import ChatJudge
from erv.evaluate.judges.panel import verdicts_of
from erv.evaluate.judges.protocol import FAILED, OUTSIDE, SILENT, Verdict
from erv.evaluate.judges.questions import OpenQuestions
from erv.evaluate.judges.worth import LabelledText, measure_worth
from erv.labels import LabelSpace
from erv.settings.judges import LocalJudge, OpenAIJudge
from tests.support.chat_server import Script, fails, says
from tests.support.runtime import RUNTIME
from tests.support.served import transformers_serve
from tests.support.tiny_teacher import make_chat

pytestmark = pytest.mark.integration

MAFW, DFEW = LabelSpace.load("mafw"), LabelSpace.load("dfew")
TEXT = "The voice is loud. The person must feel angry."


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.close()


@pytest.fixture
def judge(script: Script, tmp_path: Path) -> Callable[..., ChatJudge]:
    def build(**changes: Any) -> ChatJudge:
        settings = {
            "kind": "openai",
            "model": "m",
            "base_url": script.url,
            "api_key_env": None,
            "concurrency": 2,
            "timeout_seconds": 2.0,
            "max_retries": 0,
            "attempts": 2,
        }
        (built,) = build_judges(
            [OpenAIJudge.model_validate(settings | changes)],
            runtime=RUNTIME,
            texts=lambda: b"",
            folder_of=tmp_path.joinpath,
            replies=tmp_path / "replies",
        )
        assert isinstance(built, ChatJudge)
        return built

    return build


def replies(script: Script, reply: str | None, **more: Any) -> None:
    script.answer = lambda *_: says(reply, **more)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"emotion": "angry"}', Verdict("named", "angry")),
        ('{"emotion": "Rage"}', Verdict("named", "angry")),
        ('<think>anger?</think>```json\n{"emotion": "sad"}\n```', Verdict("named", "sad")),
        ('{"emotion": "none"}', SILENT),
        ('{"emotion": "contempt"}', OUTSIDE),
        ('{"emotion": "mild boredom"}', OUTSIDE),
        ('{"emotion": ""}', FAILED),
        ('{"emotion": "angry, because he shouts at her"}', FAILED),
        ('{"emotion": ["angry"]}', FAILED),
        ("The person is clearly angry.", FAILED),
        ("angry", FAILED),
        ("", FAILED),
        (None, FAILED),
    ],
)
def test_each_reply_has_its_outcome_and_none_is_neutral(
    script: Script, judge: Any, reply: str | None, verdict: Verdict
) -> None:
    replies(script, reply)
    assert judge().judge([TEXT], DFEW) == [verdict]
    assert len(script.asked) == (2 if verdict == FAILED else 1), "a faulty reply is asked about again"


def test_a_corrected_reply_counts(script: Script, judge: Any) -> None:
    script.answer = lambda _, before, messages: says(
        '{"emotion": "angry"}' if len(messages) > 2 else "Angry!"
    )
    assert judge().judge([TEXT], DFEW) == [Verdict("named", "angry")]
    assert (
        "That reply can't be used: it is not a JSON object alone"
        in script.bodies[1]["messages"][-1]["content"]
    )


def test_what_is_empty_is_silent_without_being_asked_about(script: Script, judge: Any) -> None:
    replies(script, '{"emotion": "angry"}')
    assert (
        judge().judge([None, "", " \n", TEXT, TEXT], MAFW) == [SILENT] * 3 + [Verdict("named", "anger")] * 2
    )
    assert script.asked == [TEXT]


def test_no_answer_is_a_failure_unless_the_server_is_away(script: Script, judge: Any) -> None:
    script.answer = lambda text, *_: (
        fails(500) if text == "1" else says("{}", seconds=3.0) if text == "2" else says('{"emotion": "fear"}')
    )
    one = judge(attempts=1)
    verdicts = one.judge([str(number) for number in range(8)], MAFW)
    assert verdicts == [FAILED if number in (1, 2) else Verdict("named", "fear") for number in range(8)]
    script.answer = lambda *_: fails(503)
    with pytest.raises(ChatError, match=r"gave no answer for 6 of 10 explanations, .* are read and kept"):
        one.judge([f"text {number}" for number in range(10)], MAFW)


def test_many_replies_in_prose_are_failures_and_a_worth_of_nothing(script: Script, judge: Any) -> None:
    """A teacher that can't reply in the required form ends its run; a judge is refused by its worth."""
    replies(script, "I would say that this person seems rather upset.")
    worth = measure_worth(judge(attempts=1), [LabelledText(f"{TEXT} {n}", "anger") for n in range(40)])
    assert worth["outcomes"] == {"failed": 40}
    assert worth["recall"] == 0.0


def test_replies_are_kept_by_content(script: Script, judge: Any) -> None:
    replies(script, '{"emotion": "angry"}')
    first = judge()
    assert first.judge([TEXT], MAFW) == [Verdict("named", "anger")]
    replies(script, '{"emotion": "sad"}')
    again = judge()
    assert again.judge([TEXT], MAFW) == [Verdict("named", "anger")]
    assert (again.asked.usage.requests, again.asked.usage.cached) == (0, 1)
    assert judge().judge([TEXT], DFEW) == [Verdict("named", "sad")], (
        "another list of labels is another question"
    )
    assert judge(model="n").judge([TEXT], MAFW) == [Verdict("named", "sadness")]
    replies(script, "sadness")
    assert judge(mode="official").judge([TEXT], MAFW) == [Verdict("named", "sadness")]
    assert (
        len({judge(**change).describe()["digest"] for change in ({}, {"model": "n"}, {"mode": "official"})})
        == 3
    )


def test_a_budget_ends_the_run_and_what_is_read_stays(script: Script, judge: Any) -> None:
    replies(script, '{"emotion": "angry"}')
    paid = {"price_in": 1000.0, "price_out": 1000.0, "max_cost": 2.0, "concurrency": 1}
    with pytest.raises(
        ChatError, match=r"explanations read and kept: .* raise max_cost of the judge and run it"
    ):
        judge(**paid).judge([f"{TEXT} {number}" for number in range(200)], MAFW)
    sent = len(script.asked)
    assert 0 < sent < 200
    verdicts = judge().judge([f"{TEXT} {number}" for number in range(sent)], MAFW)
    assert len(script.asked) == sent
    assert verdicts == [Verdict("named", "anger")] * sent


@pytest.mark.parametrize(
    ("reply", "emotion"),
    [
        ("angry", "angry"),
        ("neutral", "neutral"),
        ("Angry", "neutral"),
        ("angry.", "neutral"),
        ("anger", "neutral"),
        ("The emotion is angry", "neutral"),
        ("contempt", "neutral"),
        ("", "neutral"),
    ],
)
def test_the_official_question_and_its_filter(script: Script, judge: Any, reply: str, emotion: str) -> None:
    replies(script, reply)
    one = judge(mode="official", attempts=1)
    assert one.name == "openai:m:official"
    assert one.judge([TEXT, None], DFEW) == [Verdict("named", emotion)] * 2
    said = {body["messages"][0]["content"] for body in script.bodies}
    start = (
        "Read the reasoning content and respond with the appropriate emotion in happy, sad, neutral, angry,"
        " surprise, disgust, fear. Reply with only the emotion word.\nReason: "
    )
    assert said == {f"{start}{TEXT}\nAnswer Emotion:", f"{start}\nAnswer Emotion:"}
    assert all(len(body["messages"]) == 1 for body in script.bodies)


def test_the_official_filter_calls_no_reply_neutral(script: Script, judge: Any) -> None:
    script.answer = lambda *_: fails(500)
    assert judge(mode="official").judge([TEXT], DFEW) == [Verdict("named", "neutral")]


def test_a_key_that_is_not_set_is_said_before_anything_is_sent(
    judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(SettingsError, match=r"JUDGE_KEY is not set; .* set api_key_env of the judge to null"):
        judge(api_key_env="JUDGE_KEY")


SAID = {
    "He shouts and slams the door.": '{"emotion": "anger"}',
    "Tears run down her cheeks.": '{"emotion": "sadness"}',
    "The room has white walls.": '{"emotion": "none"}',
    "She yawns at the lecture.": '{"emotion": "boredom"}',
}


@pytest.mark.slow
def test_a_served_model_and_the_same_one_in_this_process_judge_alike(tmp_path: Path) -> None:
    folder = tmp_path / "judge"

    def train() -> None:
        make_chat(folder, OpenQuestions(MAFW), SAID)

    with transformers_serve(tmp_path, train) as url:
        settings = [
            OpenAIJudge(kind="openai", model=str(folder), base_url=url, api_key_env=None, timeout_seconds=60),
            LocalJudge(kind="local", model="judge"),
        ]
        judges = build_judges(
            settings,
            runtime=RUNTIME,
            texts=lambda: b"",
            folder_of=tmp_path.joinpath,
            replies=tmp_path / "replies",
        )
        rows = verdicts_of(judges, [*SAID, None], MAFW)
    assert json.dumps([[said["emotion"] for said in row] for row in rows]) == json.dumps(
        [["anger"] * 2, ["sadness"] * 2, [None] * 2, [None] * 2, [None] * 2]
    )
    assert [row[0]["outcome"] for row in rows] == ["named", "named", "silent", "outside", "silent"]
    assert all(row[0]["outcome"] == row[1]["outcome"] for row in rows)
    assert judges[0].weights == frozenset()
    assert len(judges[1].weights) > 5
