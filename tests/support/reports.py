"""A small evaluation of three policies, read by two judges, and the report made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from erv.cues import ClipCues
from erv.grounding.grounding import ground
from erv.labels import LabelSpace
from erv.report import page, report
from erv.report.datasets import DatasetEvidence, Missed
from erv.report.evidence import Evidence
from erv.settings import ReportSettings
from erv.shards import Clip
from erv.train_erv.behaviour import ABILITIES
from erv.train_erv.scores import classification_report

SETTINGS = ReportSettings(bootstrap_samples=100, confidence=0.95, show_media=("mafw",))
POLICIES = ("sft", "mine", "erv")
PANEL = ("lexical", "embedding")
WORTH = {"accuracy": 0.8, "low": 0.7, "high": 0.95, "recall": 0.75, "texts": 200}
HOSTILE = (
    "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\"> \u2028"
)
JUDGE = {
    "name": "lexical",
    "architecture": "bag of words",
    "digest": "0" * 64,
    "worth": {
        "texts": 2,
        "accuracy": 1.0,
        "low": 0.342,
        "high": 1.0,
        "recall": 0.5,
        "recall_low": 0.3,
        "recall_high": 0.7,
        "emotions": {"anger": {"texts": 2, "right": 1}, "fear": {"texts": 0, "right": 0}},
    },
}
DECODING = {"max_new_tokens": 96, "temperature": 0.0, "split": "test"}
JUDGES = {"lexical": JUDGE, "embedding": {"name": "embedding", "worth": {**WORTH, "accuracy": 0.9}}}
MEASURED = {"judge": JUDGE, "judges": JUDGES, "decoding": DECODING}
NAMES = LabelSpace.load("mafw").names


MAFW = DatasetEvidence(
    fold=2,
    splits={"train": 8, "validation": 0, "test": 3},
    balance=[
        {"fold": fold, "split": split, "label": label, "clips": clips}
        for fold in ("1", "2")
        for split, label, clips in (
            ("train", "anger", "5"),
            ("train", "fear", "3"),
            ("test", "anger", "2"),
            ("test", "fear", "1"),
        )
    ],
    durations=[{"seconds": "1.5", "clips": "7"}, {"seconds": "2.0", "clips": "4"}],
    quarantine=[{"stage": "extract", "reason": "no audio <stream>", "clips": "2"}],
    warnings=["listed_but_absent: 3 of 14 listed clips are not in the <source>; expected all of them there"],
    missed=[Missed("not_black", "tolerated", "a frame with a mean luma of at least 8 of 255", 1)],
)


SENTENCES = {
    "sentences": 90,
    "texts": 60,
    "splits": {"train": 40, "validation": 10, "test": 10},
    "sources": {"reasoning": 80, "rollouts": 10},
    "teachers": {"openai:<m>": {"labelled": 90, "refused": 3}, "local:t": {"labelled": 93, "refused": 0}},
    "quarantined": {"malformed": 3},
    "agreement": [{"teachers": ["openai:<m>", "local:t"], "sentences": 90, "kappa": 0.75}],
}
BY_SOURCE = {"reasoning": {"n": 40, "macro_f1": 1.0}}
BEHAVIOUR = {ability: {"passed": 3, "total": 4, "failed": ["<b>: anger"]} for ability in ABILITIES}


class LoudVerifier:
    """Reads anger where a sentence is loud, neutral elsewhere."""

    labels = NAMES

    def predict(self, sentences: list[str]) -> torch.Tensor:
        """Probabilities [sentences, labels]."""
        rows = torch.zeros(len(sentences), len(NAMES))
        for row, sentence in zip(rows, sentences, strict=True):
            row[NAMES.index("anger" if "loud" in sentence else "neutral")] = 0.9
        return rows


def prediction(policy: str, clip: int) -> dict[str, Any]:
    """A row of the predictions table.

    Clip 2 is hostile, 5 has no tags, and 7 has an answer that is not a label.
    """
    label = NAMES[clip % 3]
    answer: str | None = label if (clip + len(policy)) % 4 else "fear"
    explanation = "The room is <b>plain</b> & dark. The voice is loud, burning with rage."
    if clip == 2:
        explanation = explanation.replace("dark.", f"dark {HOSTILE}.")
    completion = f"<think>{explanation}</think>\n<answer>{answer}</answer>"
    if clip == 5:
        completion, answer = "no <tags> at all", None
    if clip == 7:
        completion, answer = completion.replace(f"<answer>{answer}", "<answer>bored"), None
    return {
        "dataset": "mafw",
        "clip_id": f"{clip:05d}",
        "split": "test",
        "label": label,
        "completion": completion,
        "predicted": answer,
        "judged": None if clip == 5 else "anger",
        "sentences": 0 if clip == 5 else 2,
        "verdicts": [
            verdict("lexical", None if clip == 5 else "anger"),
            verdict("embedding", None, "unreadable") if clip == 4 else verdict("embedding", label),
        ],
    }


def verdict(judge: str, emotion: str | None, outcome: str = "silent") -> dict[str, Any]:
    """A judge's verdict on an explanation: the emotion that it names, or another outcome."""
    return {"judge": judge, "outcome": "named" if emotion else outcome, "emotion": emotion}


def predictions_of(policies: tuple[str, ...] = POLICIES, clips: int = 12) -> dict[str, list[dict[str, Any]]]:
    """Rows by policy."""
    return {policy: [prediction(policy, clip) for clip in range(clips)] for policy in policies}


def direct_of(clips: int = 12) -> list[dict[str, Any]]:
    """Rows of a policy that answers without explaining; one judge is silent, the other can't read it."""
    return [
        {
            **row,
            "completion": f"<think></think>\n<answer>{row['predicted']}</answer>",
            "judged": None,
            "sentences": 0,
            "verdicts": [verdict("lexical", None, "unreadable"), verdict("embedding", None)],
        }
        for row in (prediction("direct", clip) for clip in range(clips))
    ]


def with_direct(evidence: Evidence) -> Evidence:
    """The evidence, with that of a policy `direct` that answers without explaining."""
    measured = {**evidence.evaluations, "direct": {**MEASURED, "explains": False}}
    return replace(evidence, evaluations=measured)


def evidence_of(clips: int = 12) -> Evidence:
    """What the page shows besides, for all policies."""
    targets = np.eye(len(NAMES), dtype=np.float32).repeat(4, axis=0)
    targets = targets[targets[:, NAMES.index("contempt")] == 0]
    quality = classification_report(0.8 * targets + 0.1, targets, np.full(len(NAMES), 0.5), NAMES)
    shown = {"face": frozenset({"brows_lowered"}), "voice": frozenset({"voice_loud"})}
    known = {"mafw": {f"{clip:05d}": ClipCues(f"{clip:05d}", shown, "both") for clip in range(clips)}}
    drawn: dict[str, Any] = {"samples": 100, "confidence": 0.95, "seed": 0}
    grounding, _ = ground(predictions_of(clips=clips), known, captions={}, judge=None, **drawn)
    return Evidence(
        evaluations=dict.fromkeys(POLICIES, MEASURED),
        verifier={
            **quality,
            "calibration": "temperature",
            "behaviour": BEHAVIOUR,
            "by_source": {"reasoning": {"n": 40, "macro_f1": 1.0}},
        },
        sentences=SENTENCES,
        data={"mafw": MAFW},
        cues=known,
        grounding=grounding,
        planted=0.45,
    )


def clip_of(dataset: str, clip_id: str) -> Clip:
    """Half a second of a tone, louder towards its end; clip 3 is silent, clip 4 has no sound."""
    number = int(clip_id)
    frames = np.full((8, 16, 16, 3), number * 20 % 256, dtype=np.uint8)
    times = np.arange(8000) / 16000
    audio = (16000 * times * np.sin(2 * np.pi * 220 * times)).astype(np.int16)
    if number == 3:
        audio[:] = 0
    if number == 4:
        return Clip(clip_id, frames, audio[:0], 16000, has_audio=False)
    return Clip(clip_id, frames, audio, 16000)


def compared(predictions: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The comparison, with figures by judge."""
    return report.build_comparison(predictions, evidence, SETTINGS, seed=0)


def loud(sentences: Any, space: LabelSpace) -> list[str | None]:
    """A judge of single sentences: happiness where it is loud, and nothing else."""
    return [space.names[3] if "loud" in sentence else None for sentence in sentences]


def write(
    folder: Path,
    predictions: Mapping[str, Any],
    evidence: Evidence,
    comparison: Mapping[str, Any] | None = None,
    **options: Any,
) -> str:
    """Writes the report into `folder` and returns its text."""
    settings = options.pop("settings", SETTINGS)
    page.write_report(
        predictions,
        comparison or compared(predictions, evidence),
        evidence,
        settings,
        seed=0,
        candidate=options.pop("candidate", "erv"),
        verifier=LoudVerifier(),
        judges={"lexical": loud},
        clip_of=options.pop("clip_of", clip_of),
        html=folder / "report.html",
        folder=folder / "clips",
        **options,
    )
    return (folder / "report.html").read_text(encoding="utf-8")
