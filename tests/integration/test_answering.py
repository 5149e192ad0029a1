"""Streamed answers: the text that MLflow's model gives, sentence by sentence, from a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from erv.answering import seeing, showing
from erv.answering.clips import ROOT_VARIABLE, ClipInput, ServedClips
from erv.answering.events import Answer, Done, Error, Event, Queued, Seen, Sentence, Started, Token
from erv.answering.predictor import Predictor
from erv.answering.process import Answerer, QueueFull, Ticket
from erv.answering.requests import Request
from erv.answering.streaming import Streaming
from erv.errors import EvaluationError
from erv.labels import LabelSpace
from erv.media.decode import Decoded, MediaError
from erv.media.nursery import can_fork
from tests.support.talking_bundle import COMPLETIONS, SAID, write_talking_bundle
from tests.support.tiny_bundle import write_clip

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answering")
    (folder / "clips").mkdir()
    clips = {
        emotion: write_clip(folder / f"clips/{emotion}.mp4", seed=seed) for seed, emotion in enumerate(SAID)
    }
    write_clip(folder / "clips/silent.mp4", sound=False)
    (folder / "clips/broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(200))
    write_talking_bundle(folder / "bundle", clips)
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor(folder / "bundle", ServedClips((folder / "clips").resolve()))


def streamed(
    predictor: Predictor, *requests: Request, cancelled: Callable[[int, list[Event]], bool] | None = None
) -> list[list[Event]]:
    """The events of requests that are answered together."""
    streaming = Streaming(predictor)
    said: list[list[Event]] = [[] for _ in requests]

    def stops(row: int) -> Callable[[], bool]:
        return lambda: cancelled is not None and cancelled(row, said[row])

    ready = [
        streaming.prepare(request, said[row].append, stops(row), time.monotonic())
        for row, request in enumerate(requests)
    ]
    streaming.answer([item for item in ready if item is not None])
    return said


def of_kind(events: Sequence[Event], kind: type[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("emotion", SAID)
def test_alone_it_says_what_mlflow_s_model_says(predictor: Predictor, emotion: str) -> None:
    (row,) = predictor.predict([ClipInput(f"{emotion}.mp4")])
    assert row["completion"] == COMPLETIONS[emotion]
    (events,) = streamed(predictor, Request(clip=f"{emotion}.mp4"))
    assert isinstance(events[0], Started)
    assert "".join(event.text for event in of_kind(events, Token)) == row["completion"]
    done = events[-1]
    assert isinstance(done, Done)
    assert {name: getattr(done, name) for name in ("answer", "explanation", "completion", "agreement")} == {
        name: row[name] for name in ("answer", "explanation", "completion", "agreement")
    }
    assert done.ended == "stop"
    assert done.usage.completion_tokens >= len(of_kind(events, Token))
    assert done.seconds.first_token is not None
    assert done.seconds.decode <= done.seconds.first_token <= done.seconds.total


def test_sentences_come_before_the_rest_is_written(predictor: Predictor) -> None:
    (events,) = streamed(predictor, Request(clip="anger.mp4"))
    said = of_kind(events, Sentence)
    assert [(one.index, one.text) for one in said] == list(enumerate(text for text, _ in SAID["anger"]))
    assert [one.labels for one in said] == [(emotion,) for _, emotion in SAID["anger"]]
    assert all(one.agrees is None for one in said), "the answer isn't known yet"
    first = events.index(said[0])
    assert sum(isinstance(event, Token) for event in events[first:]) > 10
    assert [one.agrees for one in events[-1].sentences] == [True, True, False, True]
    assert [one.scores for one in events[-1].sentences] == [one.scores for one in said]
    verifier = predictor.verifier
    for one in said:
        (row,) = verifier.predict([one.text]).tolist()
        assert one.scores == pytest.approx(dict(zip(verifier.labels, row, strict=True)), abs=1e-5)


def test_scenery_neither_agrees_nor_disagrees(predictor: Predictor) -> None:
    (events,) = streamed(predictor, Request(clip="happiness.mp4"))
    assert [one.agrees for one in events[-1].sentences] == [True, True, None, True]
    assert events[-1].agreement == 1.0


def test_what_was_seen_is_shown_if_asked_for(predictor: Predictor) -> None:
    (events,) = streamed(predictor, Request(clip="anger.mp4", show=True))
    (seen,) = of_kind(events, Seen)
    assert isinstance(events[0], Started)
    assert events[1] is seen
    assert len(seen.frames) == 2
    assert max(seen.waveform) > 0.2
    assert 0.9 < seen.seconds < 1.2


def test_sound_of_its_own_is_heard_instead(predictor: Predictor, tmp_path: Path) -> None:
    """With the sound of the other clip, the other words are a little more likely; silence is refused."""
    import wave

    def wav(samples: np.ndarray) -> bytes:
        with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(samples.tobytes())
        return (tmp_path / "sound.wav").read_bytes()

    heard = predictor.decode([ClipInput("happiness.mp4")], [None])[0].audio
    given, silent, film = streamed(
        predictor,
        Request(clip="silent.mp4", audio=wav(heard), show=True),
        Request(clip="anger.mp4", audio=wav(np.zeros(16000, np.int16))),
        Request(clip="silent.mp4", audio=(predictor.clips.folder / "anger.mp4").read_bytes(), show=True),
    )
    loudest = predictor.decode([ClipInput("anger.mp4")], [None])[0].audio
    assert (
        of_kind(given, Seen)[0].waveform
        == showing.shown(Decoded(np.zeros((1, 8, 8, 3), "u1"), heard), 16000).waveform
    )
    assert silent[-1].sentence.endswith("found -120 (not_silent)")
    assert (
        of_kind(film, Seen)[0].waveform
        == showing.shown(Decoded(np.zeros((1, 8, 8, 3), "u1"), loudest), 16000).waveform
    )


def test_sound_of_unknown_length_is_not_cut_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording of a browser doesn't say how long it is."""
    import av

    path = tmp_path / "sound"
    with path.open("wb") as file, av.open(Unseekable(file), "w", format="webm") as container:
        stream = container.add_stream("libopus", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.full((1, 48000), 900, np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with av.open(str(path)) as container:
        assert container.duration is None
    monkeypatch.setattr(seeing, "MAX_SECONDS", 4.0)
    assert len(seeing._heard(path, 16000)) == pytest.approx(48000, abs=1600)
    monkeypatch.setattr(seeing, "MAX_SECONDS", 2.0)
    with pytest.raises(MediaError, match=r"the sound has 3\.\d s, at most 2 s are heard"):
        seeing._heard(path, 16000)


class Unseekable:
    """A file as a pipe is one."""

    def __init__(self, file: Any) -> None:
        self.write = file.write


def test_together_each_gets_its_own(predictor: Predictor) -> None:
    found = streamed(predictor, *(Request(clip=f"{emotion}.mp4") for emotion in (*SAID, *SAID)))
    for emotion, events in zip((*SAID, *SAID), found, strict=True):
        assert events[-1].completion == COMPLETIONS[emotion]


def test_scores_are_the_policy_s_probabilities(predictor: Predictor) -> None:
    """Against a pass over clip, question, explanation and answer as a whole, also beside a longer row."""
    import torch

    from erv.policies.common.generate import encode

    policy = predictor.policy
    tokenizer, processor = policy.processor.tokenizer, policy.processor
    names = ["anger", "happiness", "disappointment"]
    space = LabelSpace.load("mafw")
    for request, other in (("anger", None), ("anger", "happiness"), ("happiness", "anger")):
        asked = [Request(clip=f"{request}.mp4")]
        asked += [Request(clip=f"{other}.mp4", subtitle="x", prompt="Who? " * 30)] if other else []
        events = streamed(predictor, *asked)[0]
        (answer,) = of_kind(events, Answer)
        assert sum(answer.scores.values()) == pytest.approx(1.0, abs=1e-4)
        assert max(answer.scores, key=answer.scores.__getitem__) == answer.text == request
        seen = predictor.decode([ClipInput(f"{request}.mp4")], [None])[0]
        features = encode(policy, [predictor.clip("0", seen)])
        logs = {}
        for word in (word for name in names for word in space.words_of(name)):
            said = f"{COMPLETIONS[request].partition('<answer>')[0]}<answer>{word}</answer>"
            prompt, rest = processor.prompt_ids(), tokenizer(said)["input_ids"]
            ids = torch.tensor([prompt + rest])
            with torch.inference_mode():
                logits = policy.model(input_ids=ids, **features, **processor.question_inputs()).logits
            steps = torch.log_softmax(logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
            count = len(tokenizer(f"{word}</answer>")["input_ids"])
            logs[word] = steps[-count:].sum()
        shares = {name: sum(logs[word].exp().item() for word in space.words_of(name)) for name in names}
        for name in names[1:]:
            expected = shares[name] / shares[names[0]]
            assert answer.scores[name] / answer.scores[names[0]] == pytest.approx(
                expected, rel=0.05, abs=2e-4
            )


@pytest.mark.parametrize("dataset", [None, "dfew", "mafw"])
def test_an_answer_has_the_highest_score_in_the_space_of_its_data_set(
    folder: Path, tmp_path: Path, dataset: str | None
) -> None:
    """DFEW knows `happiness` as another word for `happy`, which the policy never writes: its score was 0."""
    bundle = shutil.copytree(folder / "bundle", tmp_path / "bundle")
    serving = json.loads((bundle / "serving.json").read_text())
    (bundle / "serving.json").write_text(json.dumps({**serving, "datasets": {"dfew": None, "mafw": None}}))
    predictor = Predictor(bundle, ServedClips((folder / "clips").resolve()))
    names = {"happiness": "happy", "anger": "angry"} if dataset == "dfew" else {}
    for emotion in SAID:
        (answer,) = of_kind(streamed(predictor, Request(clip=f"{emotion}.mp4", dataset=dataset))[0], Answer)
        assert answer.text == emotion
        assert set(answer.scores) == set(LabelSpace.load(dataset or "mafw").names)
        assert max(answer.scores, key=answer.scores.__getitem__) == names.get(emotion, emotion)
        assert answer.scores[names.get(emotion, emotion)] > 0.5


def test_a_data_set_that_the_version_was_not_tested_with_is_refused(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    """It selects the emotions; another one was answered as if nothing had been said."""
    clip = "anger.mp4"
    (refused,) = streamed(predictor, Request(clip=clip, dataset="xyz"))[0]
    assert refused == Error(
        "this version was tested with mafw, not with 'xyz'; name one of those as dataset, or leave it out",
        "clip",
    )
    bundle = shutil.copytree(folder / "bundle", tmp_path / "bundle")
    serving = json.loads((bundle / "serving.json").read_text())
    del serving["datasets"]
    (bundle / "serving.json").write_text(json.dumps(serving))
    silent = Predictor(bundle, ServedClips((folder / "clips").resolve()))
    (refused,) = streamed(silent, Request(clip=clip, dataset="mafw"))[0]
    assert refused == Error(
        "this version does not say which data sets it was tested with; leave dataset out", "clip"
    )
    (row,) = predictor.predict([ClipInput(clip, dataset="xyz")])
    assert (row["answer"], row["error"]) == ("anger", None), "a table may be about another data set"


def test_a_cancelled_row_stops_and_the_others_go_on(predictor: Predictor) -> None:
    def cancelled(row: int, said: list[Event]) -> bool:
        return row == 0 and len(said) > 5

    first, second = streamed(
        predictor, Request(clip="anger.mp4"), Request(clip="happiness.mp4"), cancelled=cancelled
    )
    assert first[-1] == Error("cancelled", "cancelled")
    assert len(first) < 10
    assert second[-1].completion == COMPLETIONS["happiness"]


def test_a_limit_of_tokens_cuts_one_row_only(predictor: Predictor) -> None:
    first, second = streamed(
        predictor, Request(clip="anger.mp4", max_new_tokens=15), Request(clip="happiness.mp4")
    )
    done = first[-1]
    assert (done.ended, done.usage.completion_tokens, done.answer) == ("length", 15, None)
    assert COMPLETIONS["anger"].startswith(done.completion)
    assert next(one.text for one in done.sentences) == SAID["anger"][0][0]
    assert done.agreement is None
    assert second[-1].completion == COMPLETIONS["happiness"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request(clip="broken.mp4"), "container can't be read"),
        (Request(clip="gone.mp4"), "no such file below the served folder"),
        (Request(), "neither name nor content"),
        (Request(clip="silent.mp4"), "no sound track"),
        (Request(clip="anger.mp4", max_new_tokens=97), "max_new_tokens is 97, expected 1 to 96"),
        (Request(clip="anger.mp4", max_new_tokens=0), "max_new_tokens is 0"),
        (Request(clip="anger.mp4", prompt=" "), "the prompt is empty"),
        (Request(clip="anger.mp4", prompt="<video>?"), "a placeholder for frames or sound"),
        (Request(clip="anger.mp4", prompt="what? \ud83d"), "the prompt has half a character"),
        (Request(clip="anger.mp4", subtitle="what? \ud83d"), "the subtitle has half a character"),
        (Request(clip="anger.mp4", prompt="Who?", subtitle="No!"), "the subtitle has no place in a prompt"),
        (Request(clip="anger.mp4", audio=b"no sound"), "the sound can't be read; send wav, mp3, flac, ogg"),
        (Request(clip="anger.mp4", audio=b"\xff\xf1sound"), "the sound can't be read; send wav, mp3, flac"),
        (Request(clip="anger.mp4", audio=b"#EXTM3U\n/etc/passwd"), "the sound can't be read; send wav, mp3"),
    ],
)
def test_what_can_not_be_answered_costs_itself_only(
    predictor: Predictor, request_: Request, said: str
) -> None:
    bad, good = streamed(predictor, request_, Request(clip="anger.mp4"))
    assert isinstance(bad[-1], Error)
    assert bad[-1].code == "clip"
    assert said in bad[-1].sentence
    assert good[-1].completion == COMPLETIONS["anger"]


def test_a_model_that_fails_with_others_is_asked_alone(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erv.policies.common import generate

    real = generate.generate

    def short(policy: Any, features: Any, prompts: Any, *rest: Any, **options: Any) -> list[str]:
        if len(prompts) > 1:
            raise RuntimeError("out of memory")
        return real(policy, features, prompts, *rest, **options)

    monkeypatch.setattr(generate, "generate", short)
    found = streamed(predictor, *(Request(clip=f"{emotion}.mp4") for emotion in SAID))
    assert [events[-1].completion for events in found] == list(COMPLETIONS.values())
    monkeypatch.setattr(generate, "generate", None)
    (events,) = streamed(predictor, Request(clip="anger.mp4"))
    assert events[-1] == Error("the model failed; the log says why", "failed")


@pytest.mark.parametrize("place", ["has_other_places", "shown", "prompt_ids"])
def test_a_request_that_can_not_be_asked_costs_itself_only(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It ended the process, and with it the requests of all others."""
    from erv.answering import streaming

    def failing(real: Callable[..., Any], fails: Callable[..., bool]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if fails(*given):
                raise TypeError("nobody thought of this")
            return real(*given, **named)

        return call

    if place == "prompt_ids":
        processor = predictor.policy.processor
        fails = failing(processor.prompt_ids, lambda text=None: text == "Who?" and asking)
        monkeypatch.setattr(processor, place, fails)
        asking = False
        real = streaming._Rows.generate

        def generate(rows: Any) -> None:
            nonlocal asking
            asking = True
            real(rows)

        monkeypatch.setattr(streaming._Rows, "generate", generate)
    else:
        monkeypatch.setattr(streaming, place, failing(getattr(streaming, place), lambda *_: True))
    bad, good = streamed(
        predictor, Request(clip="happiness.mp4", prompt="Who?", show=True), Request(clip="anger.mp4")
    )
    assert bad[-1] == Error("the model failed; the log says why", "failed")
    assert good[-1].completion == COMPLETIONS["anger"]


@pytest.fixture(scope="module")
def answerer(folder: Path) -> Iterator[Answerer]:
    with Answerer(folder / "bundle", root=str(folder / "clips"), device="cpu", batch=4, queue=6) as answerer:
        yield answerer


def test_requests_wait_with_their_place_and_share_batches(answerer: Answerer, folder: Path) -> None:
    content = (folder / "clips/happiness.mp4").read_bytes()
    tickets = [answerer.submit(Request(content=content)), answerer.submit(Request(clip="broken.mp4"))]
    tickets += [answerer.submit(Request(clip="anger.mp4")) for _ in range(4)]
    with pytest.raises(QueueFull, match="6 requests wait already; ask again later"):
        tickets.extend(answerer.submit(Request(clip="anger.mp4")) for _ in range(9))
    found = [list(ticket.events(120)) for ticket in tickets]
    assert found[0][0] == Queued(0)
    assert found[3][0] == Queued(3)
    places = [event.place for event in of_kind(found[5], Queued)]
    assert places == sorted(places, reverse=True)
    assert found[0][-1].completion == COMPLETIONS["happiness"]
    assert found[1][-1].code == "clip"
    assert all(events[-1].completion == COMPLETIONS["anger"] for events in found[2:])
    assert (answerer.waiting, answerer.answering) == (0, 0)
    assert not list(answerer._scratch.path.glob("erv-clips-*")), "nothing of the requests stays"


def test_a_cancelled_request_ends_soon(answerer: Answerer) -> None:
    tickets = [answerer.submit(Request(clip="anger.mp4")) for _ in range(5)]
    tickets[-1].cancel()
    assert list(tickets[-1].events(120))[-1] == Error("cancelled", "cancelled")
    assert all(list(ticket.events(120))[-1].completion for ticket in tickets[:-1])
    tickets[0].cancel()  # it has ended


@pytest.fixture(scope="module")
def single(folder: Path) -> Iterator[Answerer]:
    """One request at a time."""
    with Answerer(
        folder / "bundle", root=str(folder / "clips"), device="cpu", batch=1, queue=8, decoders=1
    ) as answerer:
        yield answerer


def test_a_request_that_is_cancelled_while_it_waits_leaves_its_place(single: Answerer) -> None:
    """It kept the place until those before it had ended, and its clip was decoded for nobody."""
    first, *others, last = [single.submit(Request(clip="anger.mp4")) for _ in range(8)]
    for ticket in others:
        ticket.cancel()
    for ticket in others:
        assert list(ticket.events(120))[-1] == Error("cancelled", "cancelled")
    assert single.waiting + single.answering == 2, "the first one has not been answered yet"
    more = [single.submit(Request(clip="happiness.mp4")) for _ in range(6)]
    places = [event.place for event in of_kind(list(last.events(120)), Queued)]
    assert places == sorted(places, reverse=True)
    assert (places[0], places[-1]) == (7, 0)
    assert list(first.events(120))[-1].completion == COMPLETIONS["anger"]
    assert all(list(one.events(120))[-1].completion == COMPLETIONS["happiness"] for one in more)


def test_what_is_cancelled_is_not_decoded(predictor: Predictor) -> None:
    said: list[Event] = []
    for name in ("gone.mp4", "anger.mp4"):
        assert Streaming(predictor).prepare(Request(clip=name), said.append, lambda: True, 0.0) is None
    assert said == [Error("cancelled", "cancelled")] * 2


def test_cancelling_waits_for_no_clip_that_is_being_sent(single: Answerer) -> None:
    """It is called by the loop that answers all clients."""
    tickets: list[Ticket] = []

    def leave() -> None:
        tickets.append(single.submit(Request(content=bytes(8 << 20))))
        tickets[0].cancel()

    os.kill(single._process.pid, signal.SIGSTOP)
    try:
        leaving = threading.Thread(target=leave, daemon=True)
        leaving.start()
        leaving.join(30)
        assert not leaving.is_alive()
    finally:
        os.kill(single._process.pid, signal.SIGCONT)
    assert list(tickets[0].events(120))[-1] == Error("cancelled", "cancelled")


def test_the_seconds_begin_when_a_request_arrives(single: Answerer) -> None:
    """The time until a thread took it for decoding was missing."""
    tickets = [single.submit(Request(clip="anger.mp4")) for _ in range(8)]
    (*_, last) = tickets[-1].events(120)
    assert last.seconds.first_token > 3 * last.seconds.decode, "seven others are decoded and answered before"
    assert last.seconds.total > last.seconds.first_token


def test_clients_from_many_threads(answerer: Answerer) -> None:
    ends: list[Event] = []

    def ask() -> None:
        ends.append(list(answerer.submit(Request(clip="happiness.mp4")).events(120))[-1])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end.completion for end in ends] == [COMPLETIONS["happiness"]] * 6


@pytest.mark.skipif(not can_fork(), reason="workers can't be forked on this system")
def test_decoders_are_forked_by_one_process_whose_end_costs_no_request(answerer: Answerer) -> None:
    def forking() -> psutil.Process:
        (found,) = psutil.Process(answerer._process.pid).children()
        return found

    before = forking()
    assert list(answerer.submit(Request(clip="anger.mp4")).events(120))[-1].completion == COMPLETIONS["anger"]
    assert forking() == before
    assert before.children() == [], "no process of a clip is left"
    assert ROOT_VARIABLE in psutil.Process(answerer._process.pid).environ()
    assert ROOT_VARIABLE not in before.environ()
    before.kill()
    tickets = [answerer.submit(Request(clip="happiness.mp4")) for _ in range(4)]
    for ticket in tickets:
        assert list(ticket.events(120))[-1].completion == COMPLETIONS["happiness"]
    assert forking() != before
    assert "the process that forks media workers was killed (signal 9); started again" in (
        answerer._log.read_text(encoding="utf-8")
    )


def test_a_process_that_dies_says_so_to_all(folder: Path) -> None:
    with Answerer(folder / "bundle", root=str(folder / "clips"), device="cpu") as answerer:
        place = answerer._scratch.path
        tickets = [answerer.submit(Request(clip="anger.mp4")) for _ in range(2)]
        os.kill(answerer._process.pid, signal.SIGKILL)
        for ticket in tickets:
            end = list(ticket.events(60))[-1]
            assert end == Error("the process of the model has ended; the log says why", "died")
        assert not answerer.alive
        with pytest.raises(EvaluationError, match=r"was killed \(signal 9\)"):
            answerer.submit(Request(clip="anger.mp4"))
    assert not place.exists()


def test_closing_ends_what_waits(folder: Path) -> None:
    answerer = Answerer(folder / "bundle", root=str(folder / "clips"), device="cpu")
    ticket = answerer.submit(Request(clip="anger.mp4"))
    answerer.close()
    assert list(ticket.events(60))[-1] == Error("the server is closing", "died")
    assert answerer._process.returncode is not None
