"""A plan with as many clips and raters as a test wants: all pairs of policies, ratings, and checks."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erv.files import sha256_of_text, write_text
from erv.study.contents import Key, Plan, document
from tests.support.small_study import plan

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness")


def write_large_study(
    folder: Path,
    *,
    policies: Sequence[str] = ("sft", "erv"),
    clips: int = 40,
    raters: int = 12,
    overlap: int = 3,
    ratings: bool = True,
    digests: dict[str, str] | None = None,
    checks: int = 2,
    dataset: str = "mafw",
) -> Path:
    """Writes plan and key, without media: a main item per clip and pair of policies, a rating per policy."""
    chance = random.Random(folder.name)
    items: list[dict[str, Any]] = []
    about: dict[str, Any] = {}

    def add(clip: int, authors: Sequence[str], role: str = "main", expected: Any = None) -> None:
        name = hashlib.sha256(f"{clip} {authors} {role}".encode()).hexdigest()[:10]
        codes = chance.sample(["AAAA", "BBBB", "CCCC", "DDDD"], len(authors))
        written = list(zip(codes, authors, strict=True))
        chance.shuffle(written)
        items.append(
            {
                "id": name,
                "kind": "pair" if len(authors) == 2 else "rating",
                "role": role,
                "clip_id": f"{clip:06d}",
                "explanations": [
                    {"code": code, "text": f"What {code} says of {clip}.", "answer": "anger"}
                    for code, _ in written
                ],
                "expected": expected and {"preferred": {a: c for c, a in written}[expected]},
            }
        )
        about[name] = {
            "dataset": dataset,
            "clip_id": f"real{clip}",
            "label": EMOTIONS[clip * clip % len(EMOTIONS)],
            "policies": dict(written),
            "stratum": "any",
        }

    for clip in range(clips):
        for authors in itertools.combinations(policies, 2):
            add(clip, authors)
        if ratings:
            for policy in policies:
                add(clip, [policy])
    for clip in range(clips, clips + checks):
        add(clip, [policies[0], "erv:instruction"], "attention", policies[0])
    seats: dict[str, list[str]] = {f"r{place:03d}": [] for place in range(raters)}
    turn = itertools.cycle(seats)
    main = [item["id"] for item in items if item["role"] == "main"]
    chance.shuffle(main)
    for name in main:
        for _ in range(overlap):
            seats[next(turn)].append(name)
    for mine in seats.values():
        mine += [item["id"] for item in items if item["role"] == "attention"]
    swapped = {slot: sorted(chance.sample(mine, len(mine) // 2)) for slot, mine in seats.items()}
    pairs = {item["id"] for item in items if item["kind"] == "pair"}
    content = plan(folder.name)
    content |= {
        "emotions": EMOTIONS,
        "items": items,
        "media": {item["clip_id"]: hashlib.sha256(item["clip_id"].encode()).hexdigest() for item in items},
        "seats": {
            "assignments": seats,
            "swapped": {slot: [name for name in names if name in pairs] for slot, names in swapped.items()},
        },
    }
    content["texts"]["en"]["emotions"] = {label: label for label in EMOTIONS}
    text = document(Plan.model_validate_json(json.dumps(content)))
    write_text(text, folder / "study.json")
    known = digests or {name: hashlib.sha256(name.encode()).hexdigest() for name in policies}
    key = {"version": 1, "study": sha256_of_text(text), "seed": 1, "policies": known, "items": about}
    key["left_out"] = {}
    write_text(document(Key.model_validate_json(json.dumps(key))), folder / "key.json")
    return folder
