"""A small plan, written by hand: two pairs, a rating, practice, an attention check, and a gold item."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from erv.files import sha256_of_text, write_text
from erv.study.contents import PAGE_WORDS, Key, Plan, document
from erv.study.plan import MEDIA, RATINGS

EMOTIONS = ("anger", "happiness", "sadness")
QUESTIONS = ("emotion", "preferred", *(f"ratings.{name}" for name in RATINGS))


def explanation(code: str, text: str = "The woman frowns.", answer: str = "anger") -> dict[str, str]:
    return {"code": code, "text": text, "answer": answer}


def item(name: str, clip: str, kind: str = "pair", role: str = "main", **more: Any) -> dict[str, Any]:
    codes = ("AAAA", "BBBB") if kind == "pair" else ("CCCC",)
    said = [explanation(code, f"What {code} says of {clip}.") for code in codes]
    return {
        "id": name,
        "kind": kind,
        "role": role,
        "clip_id": clip,
        "explanations": said,
        "expected": None,
        **more,
    }


def plan(name: str = "small") -> dict[str, Any]:
    """The content of a plan that can be read; tests change it."""
    items = [
        item("item0", "clip0", role="practice"),
        item("item1", "clip1"),
        item("item2", "clip2"),
        item("item3", "clip3", kind="rating"),
        item("item4", "clip4", role="attention", expected={"preferred": "BBBB", "ratings": None}),
        item("item5", "clip5", "rating", "gold", expected={"preferred": None, "ratings": {"true": [1, 2]}}),
    ]
    texts = {
        "consent": ["You may stop at any time."],
        "instructions": ["Watch the clip."],
        "emotions": {label: label for label in EMOTIONS},
        "questions": {question: f"{question}?" for question in QUESTIONS},
        "page": {word: f"{word}." for word in PAGE_WORDS} | {"number": "No. {number}."},
    }
    order = [entry["id"] for entry in items]
    return {
        "version": 1,
        "name": name,
        "space": "mafw",
        "emotions": EMOTIONS,
        "languages": ["en"],
        "kinds": ["pair", "rating"],
        "texts": {"en": texts},
        "panel": {"completion_code": "DONE-1234", "return_link": "https://panel.example/back"},
        "design": {
            "overlap": 2,
            "rating_overlap": 2,
            "items_per_rater": 3,
            "pairs": 2,
            "preference": 0.6,
            "confidence": 0.95,
            "power": 0.8,
            "clip_correlation": 0.2,
            "rater_correlation": 0.0,
            "expected_power": 0.05,
        },
        "items": items,
        "media": {entry["clip_id"]: hashlib.sha256(entry["clip_id"].encode()).hexdigest() for entry in items},
        "seats": {
            "assignments": {"r001": order, "r002": [order[0], *reversed(order[1:])]},
            "swapped": {"r002": ["item1"]},
        },
    }


def write_small_study(folder: Path, content: dict[str, Any] | None = None) -> Path:
    """Writes plan, key and clips (whose bytes are their names, which no browser plays)."""
    checked = Plan.model_validate_json(_json(content or plan(folder.name)))
    text = document(checked)
    write_text(text, folder / "study.json")
    for clip in checked.media:
        path = folder / MEDIA / f"{clip}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(clip.encode())
    authors = {"AAAA": "sft", "BBBB": "erv", "CCCC": "erv"}
    items = {
        entry.id: {
            "dataset": "mafw",
            "clip_id": f"{entry.clip_id}.real",
            "label": "anger",
            "policies": {said.code: authors[said.code] for said in entry.explanations},
            "stratum": "anger/agree",
        }
        for entry in checked.items
    }
    policies = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("sft", "erv")}
    key = {
        "version": 1,
        "study": sha256_of_text(text),
        "seed": 1,
        "policies": policies,
        "left_out": {},
        "items": items,
    }
    write_text(document(Key.model_validate_json(_json(key))), folder / "key.json")
    return folder


def _json(content: Any) -> str:
    import json

    return json.dumps(content)
