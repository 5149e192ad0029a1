"""Teachers behind real servers: one whose faults are scripted, and `transformers serve` with a tiny model."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from erv.distill.teachers import ChatError, Refusal, Usage, build_teacher
from erv.errors import DataError
from erv.labels import LabelSpace
from erv.settings.teachers import LocalTeacher, OpenAITeacher
from tests.support.chat_server import ANGER, Answer, Script, fails, says
from tests.support.runtime import RUNTIME
from tests.support.served import transformers_serve, wait_for
from tests.support.tiny_teacher import SENTENCES, make_teacher

pytestmark = pytest.mark.integration

SPACE = LabelSpace.load("mafw")
KEY = "sk-hunter2-hunter2"


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.close()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)


@pytest.fixture
def teacher(script: Script, tmp_path: Path) -> Callable[..., Any]:
    def build(**changes: Any) -> Any:
        settings = {
            "kind": "openai",
            "model": "m",
            "base_url": script.url,
            "api_key_env": "TEACHER_KEY",
            "concurrency": 4,
            "timeout_seconds": 5.0,
            "max_retries": 1,
        }
        return build_teacher(
            OpenAITeacher.model_validate(settings | changes),
            runtime=RUNTIME,
            folder_of=tmp_path.joinpath,
            cache=tmp_path / "replies",
        )

    return build


def numbered(count: int) -> list[str]:
    return [f"Sentence {number}." for number in range(count)]


def test_labels_come_in_order_and_duplicates_are_asked_once(script: Script, teacher: Any) -> None:
    labels = {"a": ("anger",), "b": ("fear", "sadness"), "c": ("neutral",)}
    script.answer = lambda sentence, *_: says(json.dumps({"labels": list(labels[sentence])}))
    one = teacher(price_in=2.0, price_out=10.0)
    assert one.label(["c", "a", "b", "a"]) == [labels[name] for name in "caba"]
    assert sorted(script.asked) == ["a", "b", "c"]
    assert one.usage == Usage(3, 0, 0, 30, 15, pytest.approx((30 * 2 + 15 * 10) / 1e6))
    again = teacher()
    assert again.label(["c", "b"]) == [labels["c"], labels["b"]]
    assert again.usage == Usage(0, 2, 0, 0, 0, None)
    assert len(script.asked) == 3
    # What decides the reply is part of what it is kept under.
    teacher(temperature=0.5).label(["a"])
    teacher(model="n").label(["a"])
    assert len(script.asked) == 5


def test_only_what_is_needed_is_sent(script: Script, teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # None of the SDK's own variables has a say.
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: 1\nAuthorization: Bearer mine")
    teacher(max_reply_tokens=33).label(["a"])
    assert set(script.bodies[0]) == {"model", "messages", "temperature", "max_completion_tokens"}
    assert script.bodies[0]["max_completion_tokens"] == 33
    assert script.headers["Authorization"] == f"Bearer {KEY}"
    known = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length"}
    assert {name.lower() for name in script.headers} <= known | {
        "user-agent",
        "authorization",
        "x-stainless-raw-response",
    }
    teacher(api_key_env=None).label(["b"])
    assert "Authorization" not in script.headers


def test_limits_and_errors_of_the_server_are_waited_out(script: Script, teacher: Any) -> None:
    first = [fails(429, Retry_After="0.01"), fails(500, Retry_After="0.01"), fails(503, Retry_After="0.01")]
    script.answer = lambda sentence, before, _: says(ANGER) if before > 2 else first[before]
    one = teacher(max_retries=3)
    assert one.label(["a", "b"]) == [("anger",)] * 2
    assert Counter(script.asked) == {"a": 4, "b": 4}
    assert one.usage.requests == 2


def test_a_slow_answer_is_asked_for_again(script: Script, teacher: Any) -> None:
    script.answer = lambda sentence, before, _: says(ANGER, seconds=0.0 if before else 1.0)
    assert teacher(timeout_seconds=0.3).label(["a"]) == [("anger",)]


def test_what_is_never_answered_is_left_out_and_its_budget_counts(script: Script, teacher: Any) -> None:
    script.answer = lambda sentence, *_: says(ANGER, seconds=0.6 if sentence == "b" else 0.0)
    one = teacher(timeout_seconds=0.3, max_retries=0)
    assert one.label(["a", "b", "c"]) == [
        ("anger",),
        Refusal("no_answer", "no answer within 0.3 s"),
        ("anger",),
    ]
    assert one.usage.requests == 2
    assert one.usage.prompt_tokens > 20 + len("b")
    script.answer = lambda *_: says(ANGER)
    assert teacher().label(["a", "b", "c"]) == [("anger",)] * 3
    assert len(script.asked) == 4


def test_a_dead_port_ends_the_run(teacher: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    one = teacher(base_url=f"http://127.0.0.1:{port}/v1", max_retries=0, concurrency=1)
    assert isinstance(one.label(["a"])[0], Refusal)
    with pytest.raises(ChatError) as caught:
        one.label(numbered(50))
    assert str(caught.value).startswith(
        f"openai:m: http://127.0.0.1:{port}/v1 gave no answer for 6 of 50 sentences, at last: no connection ("
    )
    assert str(caught.value).endswith(
        "); 0 are labelled and kept, so check the server and run it again to continue"
    )
    assert one.usage.prompt_tokens == 0


def test_a_server_that_dies_midway_ends_the_run_and_the_rest_is_asked_later(
    script: Script, teacher: Any
) -> None:
    sentences = numbered(40)
    script.answer = lambda *_: says(ANGER) if len(script.asked) <= 20 else fails(502, "bad gateway")
    with pytest.raises(ChatError, match=r"6 of 40 .* 502 \(bad gateway\); 20 are labelled and kept"):
        teacher(max_retries=0).label(sentences)
    script.answer = lambda *_: says(ANGER)
    one = teacher()
    assert one.label(sentences) == [("anger",)] * 40
    assert (one.usage.cached, one.usage.requests) == (20, 20)


def test_prose_is_asked_again_with_a_correction(script: Script, teacher: Any) -> None:
    prose = "I would say that he is angry.\ud800 " * 3000
    script.answer = lambda sentence, before, _: says(ANGER if before else prose)
    one = teacher()
    assert one.label(["a"]) == [("anger",)]
    first, second = (body["messages"] for body in script.bodies)
    assert second[:2] == first
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
    assert second[2]["content"].startswith("I would say that he is angry.? I would")
    assert "not a JSON object alone" in second[3]["content"]
    assert one.usage == Usage(2, 0, 1, 20, 10, None)
    # The labels are kept under the sentence: another run need not hear the prose again.
    assert teacher().label(["a"]) == [("anger",)]
    assert len(script.asked) == 2


@pytest.mark.parametrize("text", ["He is \x1b[31mangry.", '{"labels": ["hangry"]}', "", None])
def test_what_stays_malformed_is_left_out(script: Script, teacher: Any, text: str | None) -> None:
    script.answer = lambda *_: says(text)
    one = teacher(attempts=3)
    shown = {"He is \x1b[31mangry.": "He is [31mangry."}.get(text or "", text) or "it is empty"
    assert one.label(["a"]) == [Refusal("malformed", shown)]
    assert len(script.asked) == 3
    assert len(script.bodies[-1]["messages"]) == 6
    assert one.label(["a"]) == [Refusal("malformed", shown)]  # not kept
    assert len(script.asked) == 6


@pytest.mark.parametrize(
    "body",
    [b"<html>Welcome</html>", b'{"choices": [', b"[]", b'{"choices": []}', b'{"choices": [{"message": 3}]}',
     b'{"choices": [{"message": {"content": [1]}}]}', b"[" * 100_000, b"", b"\xff\xfe\x00"],
)  # fmt: skip
def test_an_answer_that_is_no_chat_completion(script: Script, teacher: Any, body: bytes) -> None:
    script.answer = lambda sentence, before, _: says(ANGER) if before else Answer(body=body)
    assert teacher(attempts=2).label(["a"]) == [("anger",)]
    script.answer = lambda *_: Answer(body=body)
    verdict = teacher(attempts=2).label(["b"])[0]
    assert isinstance(verdict, Refusal)
    assert verdict.reason == "no_answer"
    assert verdict.detail.startswith("the answer is no chat completion: ")
    assert len(verdict.detail) < 240
    assert script.asked.count("b") == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_ends_the_run_at_once_and_never_shows_the_key(
    script: Script, teacher: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    script.answer = lambda *_: fails(status, f"Incorrect API key provided: {KEY}.\n" + "See. " * 500)
    with pytest.raises(ChatError) as caught:
        teacher().label(numbered(100))
    message = str(caught.value)
    assert message.startswith(
        f"openai:m: {script.url} answers {status} (Incorrect API key provided: ***. See."
    )
    assert message.endswith("; fix the teacher's settings and run it again")
    assert len(message) < 400
    assert len(script.asked) <= 4
    assert "hunter2" not in message + caplog.text + repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"detail": "Server is pinned to x"}', "400 (Server is pinned to x)"),
        (b'{"error": "no such model"}', "400 (no such model)"),
        (b'{"object": "error", "message": "too long"}', "400 (too long)"),
        (b"<h1>Bad\nRequest</h1>", "400 (<h1>Bad Request</h1>)"),
        (b"", "400;"),
        (b"[" * 100_000, "400 ([[["),
    ],
)
def test_what_servers_say_is_passed_on(script: Script, teacher: Any, body: bytes, said: str) -> None:
    script.answer = lambda *_: Answer(status=400, body=body)
    with pytest.raises(ChatError) as caught:
        teacher().label(["a"])
    assert f"answers {said}" in str(caught.value)


def test_the_key_in_an_error_that_passes_or_in_a_reply_is_masked(script: Script, teacher: Any) -> None:
    script.answer = lambda *_: fails(500, f"{KEY} has no quota")
    assert teacher(max_retries=0).label(["a"]) == [
        Refusal("no_answer", "the server answers 500 (*** has no quota)")
    ]
    script.answer = lambda *_: says(f"Your key is {KEY}")
    assert teacher(attempts=1).label(["a"]) == [Refusal("malformed", "Your key is ***")]
    script.answer = lambda *_: Answer(body=f"<p>{KEY}</p>".encode())
    assert "***" in teacher(attempts=1).label(["a"])[0].detail


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(script: Script, teacher: Any, status: int) -> None:
    other = Script()
    try:
        script.answer = lambda *_: Answer(
            status=status, headers={"Location": f"{other.url}/chat/completions"}
        )
        with pytest.raises(ChatError, match=rf"answers {status} \(to {other.url}.*set base_url"):
            teacher().label(["a"])
        assert other.asked == []
    finally:
        other.close()


def test_no_more_requests_at_a_time_than_allowed(script: Script, teacher: Any) -> None:
    script.answer = lambda *_: says(ANGER, seconds=0.02)
    teacher(concurrency=3).label(numbered(30))
    assert script.most == 3


def test_the_budget_ends_a_run_and_the_next_one_asks_only_what_is_missing(
    script: Script, teacher: Any
) -> None:
    sentences = numbered(200)
    cap = 2500
    one = teacher(max_tokens=cap)
    with pytest.raises(ChatError) as caught:
        one.label(sentences)
    done = len(script.asked)
    # Requests that could pass the cap together wait for each other before any is refused.
    assert 50 < done < 150
    assert one.usage.prompt_tokens + one.usage.reply_tokens == 15 * done <= cap
    assert str(caught.value) == (
        f"openai:m: stopped with {done} of 200 sentences labelled and kept: {15 * done} of {cap} tokens are"
        " spent and the next request could exceed that; raise max_tokens of the teacher and run it again to"
        " continue"
    )
    rest = teacher()
    assert rest.label(sentences) == [("anger",)] * 200
    assert (rest.usage.cached, rest.usage.requests) == (done, 200 - done)
    assert len(script.asked) == len(set(script.asked)) == 200


def test_the_budget_in_money(script: Script, teacher: Any) -> None:
    # 15 tokens cost 10 * 1000 + 5 * 2000 = 20,000 millionths.
    one = teacher(max_tokens=None, price_in=1000.0, price_out=2000.0, max_cost=3.0)
    with pytest.raises(ChatError, match=r"of 3 \(max_cost\) are spent .* raise max_cost of the teacher"):
        one.label(numbered(300))
    assert one.usage.cost == pytest.approx(0.02 * len(script.asked))
    assert 0.5 < one.usage.cost <= 3.0


def test_no_request_is_sent_that_could_pass_the_cap(script: Script, teacher: Any) -> None:
    with pytest.raises(ChatError, match="0 of 1 sentences labelled and kept: 0 of 100 tokens"):
        teacher(max_tokens=100).label(["a"])
    assert script.asked == []


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "many"}, [1]])
def test_without_reported_usage_the_upper_bound_counts(script: Script, teacher: Any, usage: Any) -> None:
    script.answer = lambda *_: says(ANGER, usage)
    one = teacher(max_tokens=10_000, max_reply_tokens=64)
    with pytest.raises(ChatError, match="max_tokens"):
        one.label(numbered(100))
    assert one.usage.reply_tokens == 64 * len(script.asked)
    assert 5000 < one.usage.prompt_tokens + one.usage.reply_tokens <= 10_000


def test_a_model_that_talks_only_is_not_asked_for_everything(script: Script, teacher: Any) -> None:
    script.answer = lambda *_: says("Well, that depends on how one sees it.")
    with pytest.raises(
        ChatError, match=r"21 of 21 sentences got no reply of the form asked for, at last: Well"
    ):
        teacher(concurrency=1, attempts=2).label(numbered(200))
    assert len(script.asked) == 42


@pytest.mark.slow
def test_retries_of_the_sdk_are_in_the_budget(script: Script, teacher: Any) -> None:
    """Every request that went out and timed out may be billed; those that were refused are not."""

    def slow_twice(sentence: str, before: int, _: Any) -> Answer:
        return says(ANGER, seconds=0.0 if before % 3 == 2 else 0.6)

    script.answer = slow_twice
    one = teacher(max_tokens=12_000, max_retries=2, timeout_seconds=0.25, concurrency=1)
    with pytest.raises(ChatError, match="raise max_tokens"):
        one.label(numbered(30))
    spent = one.usage.prompt_tokens + one.usage.reply_tokens
    bound = len(json.dumps(script.bodies[0]["messages"]).encode()) // 2  # a request is worth that at least
    assert len(script.asked) >= 3
    lost = len(script.asked) - one.usage.requests
    assert lost * bound < spent <= 12_000

    script.asked.clear()
    script.answer = lambda _, before, __: fails(500) if before < 2 else says(ANGER)
    refused = teacher(max_tokens=12_000, max_retries=2)
    refused.label(["x"])
    assert len(script.asked) == 3
    assert refused.usage.prompt_tokens + refused.usage.reply_tokens == 15


def test_a_server_that_bills_too_much_is_caught_by_the_same_cap(script: Script, teacher: Any) -> None:
    script.answer = lambda *_: says(ANGER, {"prompt_tokens": 9000, "completion_tokens": 1000})
    one = teacher(max_tokens=50_000, concurrency=2)
    with pytest.raises(ChatError, match="raise max_tokens"):
        one.label(numbered(100))
    assert len(script.asked) <= 6


def test_ctrl_c_closes_the_run_and_keeps_what_came(script: Script, tmp_path: Path) -> None:
    for stop, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        script.asked.clear()
        script.answer = lambda *_: says(ANGER, seconds=0.03)
        run = labelling(script, tmp_path / stop.name)
        wait_for(lambda: len(script.asked) >= 20)
        run.send_signal(stop)
        assert run.wait(60) == code
        resumed(script, tmp_path / stop.name, in_flight=4)


def test_a_signal_whose_handler_raises_ends_the_run(script: Script, teacher: Any) -> None:
    class Stopped(BaseException):
        pass

    def stop(*_: Any) -> None:
        raise Stopped

    def answer(*_: Any) -> Answer:
        if len(script.asked) == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return says(ANGER, seconds=0.02)

    script.answer = answer
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stopped):
            teacher().label(numbered(100))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(script.asked) < 30


def test_kill_minus_nine_loses_only_what_was_under_way(script: Script, tmp_path: Path) -> None:
    script.answer = lambda *_: says(ANGER, seconds=0.03)
    run = labelling(script, tmp_path)
    wait_for(lambda: len(script.asked) >= 30)
    run.kill()
    assert run.wait(60) == -signal.SIGKILL
    resumed(script, tmp_path, in_flight=4)


def resumed(script: Script, folder: Path, in_flight: int) -> None:
    time.sleep(0.1)
    before = len(script.asked)
    assert before < 100
    script.answer = lambda *_: says(ANGER)
    settings = OpenAITeacher(kind="openai", model="m", base_url=script.url, api_key_env=None, concurrency=4)
    one = build_teacher(settings, runtime=RUNTIME, folder_of=folder.joinpath, cache=folder)
    assert one.label(numbered(100)) == [("anger",)] * 100
    assert one.usage.cached + one.usage.requests == 100
    assert before - in_flight <= one.usage.cached <= before
    assert len(script.asked) <= 100 + in_flight


_LABELLING = """
import sys
from pathlib import Path
from erv.settings import RuntimeSettings
from erv.settings.teachers import OpenAITeacher
from erv.distill.teachers import build_teacher
from erv.stage import Stopped, stop_on_signals

stop_on_signals()
url, folder = sys.argv[1:]
teacher = build_teacher(
    OpenAITeacher(kind="openai", model="m", base_url=url, api_key_env=None, concurrency=4),
    runtime=RuntimeSettings(device="cpu", dtype="float32", threads=1, python="3.11"),
    folder_of=Path,
    cache=Path(folder),
)
try:
    teacher.label([f"Sentence {number}." for number in range(100)])
except KeyboardInterrupt:
    sys.exit(130)
except Stopped:
    sys.exit(143)
"""


def labelling(script: Script, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _LABELLING, script.url, str(folder)],
        # A runner in the background may have SIGINT ignored; a terminal has not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of `transformers serve`, and the folder of a tiny chat model that it can load."""
    folder = tmp_path_factory.mktemp("teachers")
    with transformers_serve(folder, lambda: make_teacher(folder / "teacher")) as url:
        yield url, folder / "teacher"


def local(folder: Path, **changes: Any) -> Any:
    settings = LocalTeacher.model_validate({"kind": "local", "model": folder.name, "batch_size": 8} | changes)
    return build_teacher(settings, runtime=RUNTIME, folder_of=folder.parent.joinpath, cache=folder / "none")


@pytest.mark.slow
def test_a_served_model_and_the_same_one_in_this_process_say_the_same(
    served: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = served
    settings = OpenAITeacher(
        kind="openai", model=str(folder), base_url=url, api_key_env=None, concurrency=2, timeout_seconds=60
    )
    asked = [*SENTENCES, *list(SENTENCES)[:3]]
    remote = build_teacher(settings, runtime=RUNTIME, folder_of=Path, cache=tmp_path / "replies")
    verdicts = remote.label(asked)
    assert verdicts == [SENTENCES[sentence] for sentence in asked]
    here = local(folder)
    assert here.label(asked) == verdicts
    assert here.usage == remote.usage
    assert (here.usage.requests, here.usage.retried_replies) == (len(SENTENCES), 0)


@pytest.mark.slow
def test_a_model_that_the_server_lacks(served: tuple[str, Path], tmp_path: Path) -> None:
    settings = OpenAITeacher(
        kind="openai", model="nobody/nothing", base_url=served[0], api_key_env=None, max_retries=0
    )
    one = build_teacher(settings, runtime=RUNTIME, folder_of=Path, cache=tmp_path)
    with pytest.raises(ChatError):
        one.label(numbered(20))


@pytest.mark.slow
def test_a_local_model_that_says_something_else_is_corrected_and_left_out(served: tuple[str, Path]) -> None:
    one = local(served[1], max_reply_tokens=2, attempts=2)
    verdicts = one.label(list(SENTENCES)[:5])
    assert {verdict.reason for verdict in verdicts} == {"malformed"}
    assert verdicts[0].detail.startswith('{"labels')
    assert (one.usage.requests, one.usage.retried_replies, one.usage.reply_tokens) == (10, 5, 20)


@pytest.mark.slow
def test_a_sentence_that_is_too_long_for_a_local_model(served: tuple[str, Path]) -> None:
    with pytest.raises(DataError, match=r"text 'word word .*…' makes a prompt of \d+ tokens, .* 1024;"):
        local(served[1]).label(["Fine.", "word " * 2000])


def test_folders_that_hold_no_local_teacher(served: tuple[str, Path], tmp_path: Path) -> None:
    import shutil

    def said(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            local(folder).label(["a"])
        message = str(caught.value)
        assert message.startswith(f"{folder}: ")
        assert "\n" not in message
        return message

    assert "no teacher in it; pin a base source that has gone/config.json" in said(tmp_path / "gone")
    silent = shutil.copytree(served[1], tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    assert "its tokenizer has no chat template" in said(silent)
    cut = shutil.copytree(served[1], tmp_path / "cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "can't be loaded as a causal language model" in said(cut)
    (cut / "model.safetensors").rename(cut / "pytorch_model.bin")
    assert "its weights are a pickle (pytorch_model.bin), which can run code when it is loaded" in said(cut)
    deeper = shutil.copytree(served[1], tmp_path / "deeper")
    config = json.loads((deeper / "config.json").read_text())
    changed = config | {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (deeper / "config.json").write_text(json.dumps(changed))
    assert "its weights lack 12 tensors of the model" in said(deeper)
    judge = shutil.copytree(served[1], tmp_path / "judge")
    changed = config | {"architectures": ["Qwen2ForSequenceClassification"]}
    (judge / "config.json").write_text(json.dumps(changed))
    assert "holds a classifier (Qwen2ForSequenceClassification)" in said(judge)
    strict = shutil.copytree(served[1], tmp_path / "strict")
    (strict / "chat_template.jinja").write_text("{{ raise_exception('System role not supported') }}")
    assert "can't render a conversation of system, user (System role not supported)" in said(strict)
