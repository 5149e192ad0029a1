"""The clips as the page's browser shows them: truth, what each policy said, and how it was read.

Everything here is data; the page's script turns it into text nodes, never into markup.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from erv.claims import cues_in
from erv.cues import ClipCues
from erv.evaluate.evaluate import unread_kind
from erv.evaluate.outcomes import contradicts
from erv.prompts import parse_completion
from erv.report import media
from erv.report.readings import Readings, sentences_of
from erv.shards import Clip

Row = Mapping[str, Any]

# Bits of a policy's answer to a clip, for the filters of the page's script.
RIGHT, COHERENT, DISAGREE = 1, 2, 4


def mixed(rows: Sequence[Row], seed: int) -> list[Row]:
    """Rows in an order that nobody chose: by a hash of the clip's id, each emotion in turn.

    Args:
        rows: predictions of one policy.
        seed: seed of the hash.
    """
    by_label: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: _hash(row, seed), reverse=True):
        by_label.setdefault(row["label"], []).append(row)
    found: list[Row] = []
    while by_label:
        for label in sorted(by_label):
            found.append(by_label[label].pop())
            if not by_label[label]:
                del by_label[label]
    return found


def entry(said: Mapping[str, Row], unexplained: Collection[str] = ()) -> dict[str, Any]:
    """A clip in the list: what the filters and the search need, for all clips on every page.

    Args:
        said: row of the predictions table by policy.
        unexplained: policies that answer without explaining. They can only be `RIGHT`: there is nothing that
            could be coherent, or that judges could read in two ways.

    Returns:
        `dataset`, `id`, `truth`, `answers` (by policy, None if it doesn't count), `flags` (by policy: the sum
        of `RIGHT`, `COHERENT` and `DISAGREE`) and `changed`, see `change`.
    """
    row = next(iter(said.values()))
    return {
        "dataset": row["dataset"],
        "id": row["clip_id"],
        "truth": row["label"],
        "answers": [item["predicted"] for item in said.values()],
        "flags": [_flags(item, policy not in unexplained) for policy, item in said.items()],
        "changed": round(100 * change(list(said.values()))),
    }


def change(rows: Sequence[Row]) -> float:
    """How much policies differ on a clip, in 0..2, averaged over their pairs.

    1 if the answers differ, and the share of words of the two explanations that the other does not have.
    """
    pairs = list(combinations(rows, 2))
    return fmean(_differ(one, other) for one, other in pairs) if pairs else 0.0


def record(
    said: Mapping[str, Row],
    clip: Clip,
    readings: Readings,
    cues: ClipCues | None,
    *,
    show_media: bool,
) -> dict[str, Any]:
    """All that the page shows of a clip.

    Args:
        said: row of the predictions table by policy.
        clip: frames and sound.
        readings: what verifier and judges read in each sentence.
        cues: what the clip truly shows, if that is recorded.
        show_media: whether frames and sound may be in the page; the waveform always is.
    """
    has_sound = clip.has_audio and len(clip.audio) > 0
    peaks, loudest = media.waveform(clip) if has_sound else ([], None)
    return {
        "frames": media.frames_strip(clip.frames) if show_media else None,
        "frame_count": media.frames_shown(clip.frames),
        "sound": media.sound(clip) if show_media and has_sound else None,
        "withheld": not show_media,
        "seconds": round(media.seconds(clip), 2) if has_sound else None,
        "wave": peaks,
        "loudest": loudest,
        "cues": [_words(cue) for cue in cues.by_channel] if cues else [],
        "channel": cues.shows_in if cues else None,
        "answers": [_answer(row, readings, cues) for row in said.values()],
    }


def _answer(row: Row, readings: Readings, cues: ClipCues | None) -> dict[str, Any]:
    parsed = parse_completion(row["completion"])
    sentences = sentences_of(row["completion"])
    claims: list[tuple[str, bool]] = []
    if cues is not None:
        claims = [(_words(cue), cue in cues.all) for cue in cues_in(parsed.explanation or "")]
    return {
        "answer": row["predicted"] or parsed.answer or None,
        "unread": unread_kind(row),
        "sentences": [[text, readings.of(row["dataset"], text)] for text in sentences],
        # Without an explanation to show by sentences, the completion is shown as it is.
        "raw": None if sentences else row["completion"],
        "votes": [
            [verdict["outcome"], verdict["emotion"], agrees(row, verdict)] for verdict in row["verdicts"]
        ],
        "claims": claims,
    }


def agrees(row: Row, verdict: Row) -> bool | None:
    """Whether a judge heard what is answered.

    Args:
        row: row of the predictions table.
        verdict: one of its `verdicts`.

    Returns:
        True if it did, False if it heard what contradicts the answer, None for neither: it heard nothing, a
        part of a compound answer, or there is no answer that counts.
    """
    if row["predicted"] is not None and verdict["emotion"] == row["predicted"]:
        return True
    heard = {"judged": verdict["emotion"], "outside": verdict["outcome"] == "outside"}
    return False if contradicts({**row, **heard}) else None


def _flags(row: Row, explains: bool) -> int:
    right = bool(row["predicted"] == row["label"])
    if not explains:
        return RIGHT * right
    coherent = bool(row["judged"] is not None and row["judged"] == row["predicted"])
    votes = {(verdict["outcome"], verdict["emotion"]) for verdict in row["verdicts"]}
    return RIGHT * right + COHERENT * coherent + DISAGREE * (len(votes) > 1)


def _differ(one: Row, other: Row) -> float:
    words = [Counter((parse_completion(row["completion"]).explanation or "").split()) for row in (one, other)]
    total = words[0].total() + words[1].total()
    differing = 1 - 2 * (words[0] & words[1]).total() / total if total else 0.0
    return float(one["predicted"] != other["predicted"]) + differing


def _words(cue: str) -> str:
    return cue.replace("_", " ")


def _hash(row: Row, seed: int) -> str:
    return hashlib.sha256(f"{seed}/example/{row['dataset']}/{row['clip_id']}".encode()).hexdigest()
