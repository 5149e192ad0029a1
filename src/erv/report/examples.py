"""Examples for the report: clips with frames, sound and true cues, and what each policy said about them."""

from __future__ import annotations

import base64
import hashlib
import io
import wave
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from erv.grounding.claims import CueChecker, cases_of
from erv.grounding.cues import CueRecord, FindCues, true_cues
from erv.prompts import parse_completion
from erv.sentences import split_sentences
from erv.shards import Clip
from erv.verifier.protocol import Verifier, sentence_labels, thresholds_of, unreadable_by

FRAMES = 6
FRAME_SIDE = 128
AUDIO_SECONDS = 5
AUDIO_RATE = 8000


def choose_examples(rows: Sequence[Mapping[str, Any]], count: int, seed: int) -> list[Mapping[str, Any]]:
    """Chooses clips by a hash of their id, each emotion in turn, so that nobody picks them by hand.

    Args:
        rows: predictions of one policy.
        count: number of clips.
        seed: seed of the hash.
    """
    by_label: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: _order(row, seed)):
        by_label.setdefault(row["label"], []).append(row)
    chosen: list[Mapping[str, Any]] = []
    while len(chosen) < min(count, len(rows)):
        for label in sorted(by_label):
            if by_label[label] and len(chosen) < count:
                chosen.append(by_label[label].pop(0))
    return chosen


def label_explanations(completions: Iterable[str], verifier: Verifier) -> dict[str, list[str]]:
    """The emotions that a verifier reads in each sentence of the explanations, in a single prediction."""
    sentences = sorted({sentence for text in completions for sentence in _sentences(text)})
    if not sentences:
        return {}
    labels = sentence_labels(verifier.predict(sentences), verifier.labels, thresholds_of(verifier))
    foreign = unreadable_by(verifier, sentences)
    return {
        text: [] if unread else read for text, read, unread in zip(sentences, labels, foreign, strict=True)
    }


def describe_example(
    said: Mapping[str, Mapping[str, Any]],
    clip: Clip,
    labels: Mapping[str, Sequence[str]],
    cues: Mapping[str, Any] | None,
    find_cues: FindCues | None,
) -> dict[str, Any]:
    """What the page shows about a clip.

    Args:
        said: row of the predictions table by policy.
        clip: frames and sound.
        labels: emotions by sentence, from `label_explanations`.
        cues: row of `cues.parquet`, if the source has one.
        find_cues: finds the cues that a text mentions, if the wordings are known.
    """
    true_cues = _true_cues(cues)
    row = next(iter(said.values()))
    return {
        "dataset": row["dataset"],
        "clip_id": row["clip_id"],
        "label": row["label"],
        "frames": frames_strip(clip.frames),
        "audio": sound(clip) if clip.has_audio and len(clip.audio) else None,
        "cues": [cue.replace("_", " ") for cue in true_cues],
        "channel": cues["channel"] if cues else None,
        "answers": [
            _answer(policy, item, labels, true_cues if cues else None, find_cues)
            for policy, item in said.items()
        ],
    }


def cue_precision(
    rows: Sequence[Mapping[str, Any]], cues: Mapping[tuple[str, str], Mapping[str, Any]], find_cues: FindCues
) -> dict[str, float | int]:
    """How many of the cues that explanations mention are in their clips: `claimed`, `present`, `share`."""
    checked = CueChecker(CueRecord(cues, find_cues=find_cues)).check(cases_of(rows))
    claims = [claim for finding in checked for claim in finding.claims]
    claimed, present = len(claims), sum(claim.true is True for claim in claims)
    return {"claimed": claimed, "present": present, "share": present / claimed if claimed else 0.0}


def frames_strip(frames: np.ndarray) -> str:
    """Frames side by side as a JPEG data URL.

    Args:
        frames: uint8 RGB [T, H, W, 3].
    """
    from PIL import Image

    picks = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    strip = Image.new("RGB", (FRAME_SIDE * len(picks), FRAME_SIDE))
    for place, index in enumerate(picks):
        image = Image.fromarray(frames[index]).resize((FRAME_SIDE, FRAME_SIDE), Image.Resampling.BICUBIC)
        strip.paste(image, (place * FRAME_SIDE, 0))
    buffer = io.BytesIO()
    strip.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def sound(clip: Clip) -> str:
    """The first seconds of a clip's sound as a WAV data URL, at 8 kHz so that the page stays small."""
    step = max(1, round(clip.sample_rate / AUDIO_RATE))
    rate = clip.sample_rate // step
    audio = clip.audio[: AUDIO_SECONDS * clip.sample_rate].astype(np.float32)
    audio = audio[: len(audio) // step * step].reshape(-1, step).mean(axis=1)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(rate)
        stream.writeframes(audio.astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _answer(
    policy: str,
    row: Mapping[str, Any],
    labels: Mapping[str, Sequence[str]],
    true_cues: Sequence[str] | None,
    find_cues: FindCues | None,
) -> dict[str, Any]:
    parsed = parse_completion(row["completion"])
    explanation = parsed.explanation or ""
    sentences = _sentences(row["completion"])
    claims = []
    if true_cues is not None and find_cues is not None:
        claims = [
            {"cue": cue.replace("_", " "), "present": cue in true_cues} for cue in find_cues(explanation)
        ]
    return {
        "policy": policy,
        "predicted": row["predicted"],
        "answer": parsed.answer,
        "judged": row["judged"],
        "right": row["predicted"] == row["label"],
        "coherent": row["judged"] is not None and row["judged"] == row["predicted"],
        "sentences": [{"text": text, "labels": list(labels[text])} for text in sentences],
        "raw": row["completion"] if not sentences else None,
        "claims": claims,
    }


def _sentences(completion: str) -> list[str]:
    return split_sentences(parse_completion(completion).explanation or "", semantics="strict")


def _true_cues(cues: Mapping[str, Any] | None) -> list[str]:
    return list(true_cues(cues)) if cues else []


def _order(row: Mapping[str, Any], seed: int) -> str:
    return hashlib.sha256(f"{seed}/example/{row['dataset']}/{row['clip_id']}".encode()).hexdigest()
