"""A clip has taken over its decoder, and with it the pipe: what it answers costs that clip and no other."""

import gc
import json
import os
import pickle
import struct
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from erv.media.answers import AnswerError, Form, array_of, pack, record_of, unpack
from erv.media.decode import DECODED, DecodeRule, DecodeTask
from erv.media.workers import isolated
from erv.validate.probes import Probe
from tests.support.starting import WAYS, starting

RULE = DecodeRule(frames=2, size=4, geometry="stretch", sample_rate=16000)


@dataclass(frozen=True)
class Evil:
    """What a taken over worker does with an item."""

    files: tuple[Path, ...]
    how: str


class Calls:
    def __reduce__(self):
        return print, ("run by the parent",)


def answer(**parts: object) -> bytes:
    head = json.dumps({"kind": "result", "value": "x", "arrays": [], **parts}).encode()
    return struct.pack("<I", len(head)) + head


def array(dtype: object, shape: object, content: bytes = b"") -> bytes:
    return answer(value={"array": 0}, arrays=[[dtype, shape]]) + content


ERROR = {"kinds": [], "text": "\x1b[2J", "trace": "\x1b]0;gone\x07\ud800"}
ANSWERS = {
    "short": b"x",
    "nothing": struct.pack("<I", 0),
    "huge head": struct.pack("<I", 2**32 - 1),
    "old frame": struct.pack("!i", 9) + struct.pack("<IQ", 1, 1 << 50),
    "pickle": struct.pack("<I", 60) + pickle.dumps(("result", Calls())).ljust(60, b"."),
    "no JSON": struct.pack("<I", 4) + b"\xff\xfe{}",
    "deep": struct.pack("<I", 200_000) + b"[" * 200_000,
    "no answer": struct.pack("<I", 2) + b"[]",
    "petabyte": array("|u1", [1 << 50]),
    "negative": array("|u1", [-1]),
    "wide": array("|u1", [0, 1 << 62, 1 << 62]),
    "objects": array("|O", [1], b"A" * 8),
    "void": array([["a", "|O"]], [1], b"A" * 8),
    "no number": answer(value=float("nan")),
    "no such array": answer(value={"array": 3}),
    "of another kind": answer(value=[1, 2]),
    "unknown": answer(kind="fault"),
    "ready": answer(kind="ready", value=None),
    "half": answer()[:-1],
    "exception": answer(kind="error", value=ERROR),
    "no exception": answer(kind="error", value=[1]),
}


def obey(item: Evil) -> str:
    """As machine code in the worker would: it finds the pipe and writes to it itself."""
    if item.how == "good":
        return item.files[0].read_text()
    (pipe,) = (found for found in gc.get_objects() if isinstance(found, Connection) and not found.closed)
    if item.how == "closed":
        pipe.close()
    elif item.how == "unasked":
        os.write(pipe.fileno(), answer(value="good") * 3)
    else:
        os.write(pipe.fileno(), ANSWERS[item.how])
    time.sleep(600)
    return "never"


# Those that are tried in real processes, which takes long; the others differ in their JSON only.
LIVE = ["short", "huge head", "pickle", "petabyte", "void", "ready", "exception", "closed"]
TEXT: Form[Evil, str] = Form(lambda _, value: value if isinstance(value, str) else 1 / 0, lambda _: 1000)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_forged_answer_costs_its_clip_alone(tmp_path, capfd, way):
    clip = tmp_path / "clip"
    clip.write_text("good")
    items = [Evil((clip,), how) for evil in LIVE for how in (evil, "good")]
    with starting(way, obey) as start:
        outcomes = list(isolated(obey, items, workers=2, seconds=2.0, confined=True, form=TEXT, start=start))
    assert [outcome.item for outcome in outcomes] == items
    for outcome in outcomes:
        if outcome.item.how == "good":
            assert (outcome.result, outcome.failure) == ("good", None)
        else:
            assert outcome.result is None, outcome
            assert outcome.failure.isprintable(), outcome
    failures = {outcome.item.how: outcome.failure for outcome in outcomes if outcome.failure}
    assert failures["petabyte"].endswith(f"gave a wrong answer: {1 << 50} bytes, at most 1000 were asked for")
    # This one passed the restricted unpickler that once read answers, and killed the parent.
    assert failures["void"] == "decoder process gave a wrong answer: no answer: TypeError"
    assert failures["closed"] == "decoder process closed its pipe"
    assert "run by the parent" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "no JSON",
        "deep",
        "no answer",
        "petabyte",
        "negative",
        "wide",
        "objects",
        "void",
        "no number",
        "no such array",
    ],
)
def test_no_answer_is_refused_before_memory_is_taken(name):
    with pytest.raises(AnswerError):
        unpack(ANSWERS[name][4:], 1000, lambda size: np.empty(min(size, 1000), np.uint8))


@pytest.mark.parametrize("way", WAYS)
def test_answers_that_nobody_asked_for_end_the_worker(tmp_path, way):
    clip = tmp_path / "clip"
    clip.write_text("good")
    items = [Evil((clip,), "unasked"), *[Evil((clip,), "good")] * 3]
    with starting(way, obey) as start:
        outcomes = list(isolated(obey, items, workers=1, seconds=2.0, confined=True, form=TEXT, start=start))
    assert [outcome.result for outcome in outcomes] == ["good"] * 4


def read_clip(value: object) -> object:
    """What becomes of a worker's answer about a clip."""
    packed = pack("result", value)
    task = DecodeTask(RULE, (Path("c"),))
    rest = b"".join(part.tobytes() for part in packed.arrays)
    took = 0

    def read(size: int) -> np.ndarray:
        nonlocal took
        took += size
        return np.frombuffer(rest[took - size : took], np.uint8).copy()

    return DECODED.read(task, unpack(packed.head, DECODED.most_bytes(task), read)[1])


FRAMES, SOUND = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), np.arange(5, dtype=np.int16)


@pytest.mark.parametrize("sound", [SOUND, None])
def test_a_clip_arrives_as_it_was(sound):
    clip = read_clip({"frames": FRAMES, "audio": sound})
    np.testing.assert_array_equal(clip.frames, FRAMES)
    np.testing.assert_array_equal(clip.audio, sound)
    assert clip.frames.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        "clip",
        {"frames": FRAMES},
        {"frames": FRAMES, "audio": None, "more": 1},
        {"frames": FRAMES[:1], "audio": None},
        {"frames": FRAMES.astype(np.int32), "audio": None},
        {"frames": FRAMES, "audio": SOUND.astype(np.float32)},
        {"frames": FRAMES, "audio": SOUND[:0]},
        {"frames": FRAMES, "audio": SOUND[None]},
        {"frames": FRAMES, "audio": np.zeros(2 * 3600 * 16000 + 1, np.int16)},
    ],
)
def test_another_clip_than_was_asked_for_is_none(value):
    with pytest.raises(AnswerError):
        read_clip(value)


GOOD = Probe(fault="why", seconds=2.0, frames=3, has_audio=True)


def test_a_probe_arrives_as_it_was():
    _, value = unpack(pack("result", GOOD).head, 0, lambda _: np.empty(0, np.uint8))
    assert record_of(Probe, value) == GOOD


@pytest.mark.parametrize(
    ("name", "value"),
    [("frames", True), ("frames", 2.5), ("frames", 2**70), ("fault", 3), ("seconds", float("inf"))],
)
def test_another_probe_is_none(name, value):
    with pytest.raises(AnswerError, match=f"no {name} of a Probe"):
        record_of(Probe, {**vars(GOOD), name: value})
    with pytest.raises(AnswerError):
        array_of(value, np.uint8, 1)
