"""The judge of captions behind a real server: what it may reply, and what becomes of everything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erv.chat import ChatError
from erv.grounding.captions import CaptionChecker
from erv.grounding.claims import Case, Claim, Fact, Finding
from erv.settings.grounding import GroundingJudge
from tests.support.chat_server import Script, fails, says

pytestmark = pytest.mark.integration

CAPTION = "A woman frowns and shouts at the man."
EXPLANATION = "Her brows are lowered. Her voice is soft. She wears a hat."


def reply(claims: list[tuple[str, str, Any]], facts: list[tuple[str, str, Any]] = ()) -> str:
    return json.dumps(
        {
            "claims": [{"text": text, "kind": kind, "verdict": verdict} for text, kind, verdict in claims],
            "facts": [{"text": text, "kind": kind, "mentioned": seen} for text, kind, seen in facts],
        }
    )


GOOD = reply(
    [("brows are lowered", "face", "true"), ("voice is soft", "voice", "false"), ("She", "words", "unknown")],
    [("A woman frowns", "face", True), ("shouts", "voice", False)],
)
FOUND = Finding(
    "checked",
    (
        Claim("brows are lowered", "face", True),
        Claim("voice is soft", "voice", False),
        Claim("She", "words", None),
    ),
    (Fact("A woman frowns", "face", True), Fact("shouts", "voice", False)),
)


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    script.answer = lambda *_: says(GOOD)
    yield script
    script.close()


def checker(script: Script, folder: Path, **changes: Any) -> CaptionChecker:
    settings = {"kind": "openai", "model": "m", "base_url": script.url, "api_key_env": None}
    settings |= {"concurrency": 2, "timeout_seconds": 5.0, "max_retries": 0, "attempts": 2}
    return CaptionChecker(GroundingJudge.model_validate(settings | changes), folder / "replies")


def case(number: int = 0, **changes: Any) -> Case:
    values = {"explanation": EXPLANATION, "caption": CAPTION} | changes
    return Case("mafw", f"{number:05d}", **values)


def test_claims_and_facts_come_back_with_their_verdicts(script: Script, tmp_path: Path) -> None:
    judge = checker(script, tmp_path)
    assert judge.name == "openai:m"
    assert judge.check([case(0), case(1)]) == [FOUND, FOUND]
    assert len(script.asked) == 1, "equal texts are one question"
    assert script.asked[0] == f"Caption: {CAPTION}\n\nExplanation: {EXPLANATION}"
    assert script.bodies[0]["max_completion_tokens"] == 1024
    again = checker(script, tmp_path)
    assert again.check([case(7)]) == [FOUND]
    assert len(script.asked) == 1, "replies are kept by content"


def test_nothing_is_asked_where_there_is_nothing_to_compare(script: Script, tmp_path: Path) -> None:
    cases = [case(0, caption=None), case(1, explanation=None), case(2, explanation="  "), case(3, caption="")]
    found = checker(script, tmp_path).check(cases)
    assert [item.outcome for item in found] == ["unknown", "silent", "silent", "unknown"]
    assert not script.asked


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ("The explanation fits the caption well.", "The explanation fits"),
        ("", "it is empty"),
        ('{"claims": []}', '{"claims": []}'),
        (reply([("brows are lowered", "body", "true")]), "body"),
        (reply([("brows are lowered", "face", "maybe")]), "maybe"),
        (reply([], [("shouts", "voice", "yes")]), "yes"),
        (
            reply([("brows are raised", "face", "false")]),
            "quotes 'brows are raised', which is not in the text",
        ),
        (reply([], [("a soft voice", "voice", True)]), "quotes 'a soft voice', which is not in the text"),
    ],
)
def test_a_reply_that_is_no_reply_is_malformed(
    script: Script, tmp_path: Path, said: str, detail: str
) -> None:
    script.answer = lambda *_: says(said)
    (found,) = checker(script, tmp_path).check([case()])
    assert (found.outcome, found.claims, found.facts) == ("malformed", (), ())
    assert detail in found.detail


def test_a_reply_may_be_corrected(script: Script, tmp_path: Path) -> None:
    script.answer = lambda _, before, __: says(GOOD if before else "It fits.")
    assert checker(script, tmp_path).check([case()]) == [FOUND]
    assert "only with a JSON object" in script.bodies[1]["messages"][-1]["content"]


def test_a_server_without_an_answer_is_no_verdict(script: Script, tmp_path: Path) -> None:
    script.answer = lambda *_: says(GOOD, seconds=1.0)
    (found,) = checker(script, tmp_path, timeout_seconds=0.2).check([case()])
    assert (found.outcome, found.detail) == ("no_answer", "no answer within 0.2 s")
    script.answer = lambda *_: fails(503, "busy")
    (found,) = checker(script, tmp_path).check([case()])
    assert found.outcome == "no_answer"
    assert "503 (busy)" in found.detail


def test_a_refusal_and_an_empty_budget_end_the_run(script: Script, tmp_path: Path) -> None:
    script.answer = lambda *_: fails(401, "no key")
    with pytest.raises(ChatError, match="401"):
        checker(script, tmp_path).check([case()])
    with pytest.raises(ChatError, match="0 of 1 explanations checked and kept"):
        checker(script, tmp_path, max_tokens=100).check([case()])
