"""The judge of clips behind a real server: what arrives there, what comes back, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from erv.chat import ChatError
from erv.chat.endpoint import ChatEndpoint
from erv.errors import DataError, SettingsError
from erv.grounding.claims import Case, Claim, Finding
from erv.grounding.clips import ClipChecker
from erv.grounding.grounding import ground, metric_values, table_rows
from erv.grounding.judge import judge_of
from erv.grounding.senses import IMAGES, NOTHING, Probes
from erv.prompts import format_completion
from erv.settings.grounding import GroundingJudge
from erv.shards import Clip, ShardWriter
from tests.support.chat_server import Answer, Script, fails, says
from tests.support.served import transformers_serve
from tests.support.tiny_llava import PICTURE, make_llava
from tests.support.tiny_teacher import make_teacher

pytestmark = pytest.mark.integration

RATE = 8000
SOUND = (12000 * np.sin(np.arange(RATE * 3 // 2) / 9)).astype(np.int16)
FACE, VOICE = "Her brows are lowered.", "Her voice is soft."
HEARD, SILENT = "00001", "00002"


def frames() -> np.ndarray:
    """Ten frames of 96x64 pixels that get brighter."""
    levels = np.arange(10, dtype=np.uint8)[:, None, None, None] * 20
    return np.broadcast_to(levels, (10, 64, 96, 3)).copy()


def parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = body["messages"][:2][-1]["content"]
    return content


def media(body: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [part[kind] for part in parts(body) if part["type"] == kind]


def usage(messages: list[Any]) -> dict[str, int]:
    """As of a server whose model takes pictures and sound."""
    shown = sum(part["type"] != "text" for part in messages[:2][-1]["content"])
    return {"prompt_tokens": 10 + 50 * shown, "completion_tokens": 5}


def sentence_of(messages: list[Any]) -> str:
    text: str = messages[:2][-1]["content"][-1]["text"]
    return text.removeprefix("Sentence: ")


def claims(*found: tuple[str, str, str]) -> str:
    return json.dumps({"claims": [{"text": t, "kind": k, "verdict": v} for t, k, v in found]})


def answered(messages: list[Any]) -> Answer:
    said = {
        FACE: claims(("brows are lowered", "face", "true")),
        VOICE: claims(("voice is soft", "voice", "false")),
    }
    return says(said.get(sentence_of(messages), claims()), usage(messages))


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    script.answer = lambda _, __, messages: answered(messages)
    yield script
    script.close()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "shards" / "mafw", 10) as writer:
        writer.add(Clip(HEARD, frames(), SOUND, RATE))
        writer.add(Clip(SILENT, frames()[:1], SOUND[:0], RATE, has_audio=False))
    return tmp_path / "shards"


def checker(script: Script, shards: Path, **changes: Any) -> ClipChecker:
    settings = {"kind": "openai", "shows": "clip", "model": "m", "base_url": script.url, "api_key_env": None}
    settings |= {"concurrency": 2, "timeout_seconds": 5.0, "max_retries": 0, "attempts": 2, "max_frames": 4}
    return ClipChecker(GroundingJudge.model_validate(settings | changes), shards, shards.parent / "replies")


def case(clip_id: str = HEARD, explanation: str | None = f"{FACE} {VOICE}") -> Case:
    return Case("mafw", clip_id, explanation)


def asked(script: Script) -> dict[str, dict[str, Any]]:
    """What was sent about each sentence; the questions about the senses are left out."""
    sent = [body for body in script.bodies if len(body.get("messages", ())) > 1]
    return {sentence_of(body["messages"]): body for body in sent}


def test_frames_and_sound_arrive_whole(script: Script, shards: Path) -> None:
    judge = checker(script, shards, max_side=48)
    assert judge.name == "openai:m"
    found = judge.check([case()])
    expected = (Claim("brows are lowered", "face", True), Claim("voice is soft", "voice", False))
    assert found == [Finding("checked", expected)]
    assert set(asked(script)) == {FACE, VOICE}, "each sentence is a question of its own"
    for body in asked(script).values():
        assert "4 frames, evenly spread and in order, and its sound" in body["messages"][0]["content"]
        pictures = []
        for part in media(body, "image_url"):
            head, _, data = part["url"].partition(",")
            assert head == "data:image/jpeg;base64"
            pictures.append(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
        assert [picture.size for picture in pictures] == [(48, 32)] * 4
        levels = [float(np.asarray(picture, dtype=float).mean()) for picture in pictures]
        assert levels == pytest.approx([0, 60, 120, 180], abs=2), "evenly spread, in order"
        (sound,) = media(body, "input_audio")
        assert sound["format"] == "wav"
        with wave.open(io.BytesIO(base64.b64decode(sound["data"], validate=True))) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
            assert np.array_equal(np.frombuffer(file.readframes(file.getnframes()), "<i2"), SOUND)


def test_a_clip_without_sound_is_shown_without(script: Script, shards: Path) -> None:
    (found,) = checker(script, shards).check([case(SILENT)])
    for body in asked(script).values():
        assert not media(body, "input_audio")
        assert len(media(body, "image_url")) == 1
        assert "1 frame of it, without sound, because the video has none" in body["messages"][0]["content"]
    heard = Claim("voice is soft", "voice", None)
    assert found.claims == (Claim("brows are lowered", "face", True), heard), "nobody heard it"
    assert len(script.bodies) == 2 + 2, "whether the model hears doesn't matter"


def test_replies_are_kept_by_what_was_shown(script: Script, shards: Path) -> None:
    first = checker(script, shards).check([case(), case()])
    sent = len(script.bodies)
    assert sent == 3 + 2
    assert checker(script, shards).check([case()]) == first[:1]
    assert len(script.bodies) == sent
    with ShardWriter(shards / "mafw", 10) as writer:
        writer.add(Clip(HEARD, frames(), SOUND[: RATE // 2], RATE))
    checker(script, shards).check([case()])
    assert len(script.bodies) == sent + 2, "other sound under the same name"


def test_nothing_is_asked_where_nothing_is_said(script: Script, shards: Path) -> None:
    found = checker(script, shards).check([case(explanation=text) for text in (None, "  ", "...")])
    assert [item.outcome for item in found] == ["silent"] * 3
    assert not script.bodies


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ("It fits the video.", "of 'Her voice is soft.': It fits the video."),
        ("", "of 'Her voice is soft.': it is empty"),
        (claims(("voice is loud", "voice", "false")), "quotes 'voice is loud', which is not in the text"),
        (claims(("voice is soft", "body", "false")), "body"),
        ('{"claims": [], "facts": []}', "facts"),
    ],
)
def test_one_unusable_reply_leaves_the_explanation_unchecked(
    script: Script, shards: Path, said: str, detail: str
) -> None:
    script.answer = lambda _, __, messages: (
        says(said, usage(messages)) if VOICE in str(messages) else answered(messages)
    )
    found = checker(script, shards).check([case(), case(explanation=FACE)])
    assert (found[0].outcome, found[0].claims) == ("malformed", ())
    assert detail in found[0].detail
    assert found[1].outcome == "checked"


def test_a_server_without_an_answer_is_no_verdict(script: Script, shards: Path) -> None:
    script.answer = lambda _, __, messages: (
        fails(503, "busy") if VOICE in str(messages) else answered(messages)
    )
    (found,) = checker(script, shards).check([case()])
    assert (found.outcome, found.claims) == ("no_answer", ())
    assert "503 (busy)" in found.detail


@pytest.mark.parametrize(
    ("kind", "status", "said", "message"),
    [
        ("image_url", 400, "m is not a multimodal model", "does not take images: it answers 400"),
        (
            "input_audio",
            400,
            "This model does not support audio inputs",
            "does not take sound: it answers 400",
        ),
        ("image_url", 500, "image input is not supported", "does not take images: it answers 500"),
        ("input_audio", 422, "unknown part", "answers 422 .* with sound; if it takes none, use a model that"),
    ],
)
def test_an_endpoint_that_takes_no_media_is_one_sentence(
    script: Script, shards: Path, kind: str, status: int, said: str, message: str
) -> None:
    script.answer = lambda _, __, messages: (
        fails(status, said) if kind in str(messages) else answered(messages)
    )
    with pytest.raises(ChatError, match=message) as caught:
        checker(script, shards).check([case()])
    assert "set shows of the judge to caption" in str(caught.value)
    assert not asked(script), "known before the first clip is sent"


@pytest.mark.parametrize(("kind", "name"), [("image_url", "images"), ("input_audio", "sound")])
def test_media_that_are_dropped_without_a_word_are_noticed(
    script: Script, shards: Path, kind: str, name: str
) -> None:
    def deaf(_: str, __: int, messages: list[Any]) -> Answer:
        kept = [part for part in messages[-1]["content"] if part["type"] != kind]
        return says("yes", usage([{"content": kept}]))

    script.answer = deaf
    with pytest.raises(ChatError, match=f"drops {name} without a word: .* took 10 .* and without 10"):
        checker(script, shards).check([case()])
    assert not asked(script)
    assert checker(script, shards).name, "a server that counts nothing can't be checked"
    script.answer = lambda _, __, messages: says(
        answered(messages)["body"]["choices"][0]["message"]["content"], None
    )
    (found,) = checker(script, shards, model="n").check([case()])
    assert found.outcome == "checked"


def test_a_clip_counts_against_the_budget(script: Script, shards: Path) -> None:
    with pytest.raises(ChatError, match=r"0 of 2 sentences checked and kept: .*raise max_tokens"):
        checker(script, shards, max_tokens=35_000).check([case()])
    assert not asked(script)


def test_clips_leave_this_machine_only_where_that_is_allowed(script: Script, shards: Path) -> None:
    far = "http://judge.example:8000/v1"
    judge = checker(script, shards, base_url=far, send_media=("ravdess",))
    with pytest.raises(
        SettingsError, match=f"frames and sound of mafw would be sent to {far}, .* add mafw to"
    ):
        judge.check([case()])
    allowed = checker(script, shards, base_url="http://judge.invalid/v1", send_media=("mafw",))
    with pytest.raises(ChatError, match="no answer"):
        allowed.check([case()])


def test_no_proxy_of_the_environment_sees_what_is_for_this_machine(
    script: Script, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    proxy = Script()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
    try:
        (found,) = checker(script, shards).check([case()])
    finally:
        proxy.close()
    assert found.outcome == "checked"
    assert not proxy.bodies


def test_a_clip_without_shards_is_one_sentence(script: Script, shards: Path) -> None:
    with pytest.raises(DataError, match=r"clip '00009' is not in .*mafw"):
        checker(script, shards).check([case("00009")])
    with pytest.raises(DataError, match="no shards"):
        checker(script, shards).check([Case("dfew", HEARD, FACE)])


def test_the_settings_choose_what_is_shown(script: Script, shards: Path) -> None:
    given = {"kind": "openai", "model": "m", "base_url": script.url, "api_key_env": None}
    assert judge_of(GroundingJudge.model_validate(given), shards).shows == "captions"
    assert judge_of(GroundingJudge.model_validate(given | {"shows": "clip"}), shards).shows == "clips"


def test_what_is_shown_has_figures_of_its_own(script: Script, shards: Path) -> None:
    row = {"dataset": "mafw", "label": "anger", "predicted": "anger"}
    said = {"sft": FACE, "erv": f"{FACE} {VOICE}"}
    predictions = {
        policy: [
            row | {"clip_id": clip_id, "completion": format_completion(text, "anger")}
            for clip_id in (HEARD, SILENT)
        ]
        for policy, text in said.items()
    }
    result, table = ground(
        predictions,
        {"mafw": {}},
        captions={},
        judge=checker(script, shards),
        samples=100,
        confidence=0.95,
        seed=0,
    )
    assert "captions" not in result
    assert result["judge"] == "openai:m"
    shown = result["clips"]["policies"]
    assert {name: cells["overall"]["all"]["decided"] for name, cells in shown.items()} == {"sft": 2, "erv": 3}
    assert shown["erv"]["overall"]["all"]["undecided"] == 1, "the voice of the clip without sound"
    assert shown["erv"]["overall"]["voice"]["precision"]["value"] == 0.0
    assert shown["erv"]["overall"]["all"]["recall"] is None, "nobody lists all that a clip shows"
    assert metric_values(result)["clips/sft/overall/face/precision"] == 1.0
    assert {item["checked by"] for item in table_rows(result)} == {"clips"}
    assert [item["checked_by"] for item in table] == ["openai:m"] * 4


@pytest.mark.slow
def test_a_real_server_is_shown_clips_and_found_out_where_it_drops_them(shards: Path, tmp_path: Path) -> None:
    """`transformers serve` answers as if a model that only reads had been shown what it is sent."""
    reads, sees = tmp_path / "reads", tmp_path / "sees"

    def make() -> None:
        make_teacher(reads)
        make_llava(sees)

    def settings(url: str, model: Path) -> GroundingJudge:
        given = {"kind": "openai", "shows": "clip", "model": str(model), "base_url": url, "api_key_env": None}
        given |= {"timeout_seconds": 60.0, "max_reply_tokens": 8, "attempts": 1, "max_retries": 0}
        return GroundingJudge.model_validate(given)

    with transformers_serve(tmp_path, make) as url:
        with pytest.raises(ChatError, match="drops images without a word"):
            ClipChecker(settings(url, reads), shards, tmp_path / "replies").check([case(SILENT)])
        seeing = settings(url, sees)
        judge = ClipChecker(seeing, shards, tmp_path / "replies")
        (found,) = judge.check([case(SILENT)])
        assert found.outcome == "malformed", "its weights are random, but it was asked and it answered"
        chat, probes = ChatEndpoint(seeing, tmp_path / "replies"), Probes(seeing.max_side)
        counted = {name: chat.prompt_tokens(name, probes) or 0 for name in (NOTHING, IMAGES)}
        assert counted[IMAGES] == counted[NOTHING] + PICTURE
        with pytest.raises(ChatError, match=r"question with sound .* use a model that sees and hears"):
            judge.check([case(HEARD)])
