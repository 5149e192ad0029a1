"""What an imported version says of its origin: it came with the folder, and nobody here can check it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from erv.lineage.origin import origin_facts
from erv.register.claimed import misfits
from erv.register.register import EXTERNAL

IMPORTED = "external: imported from a folder; what made it is not recorded here"
UNVERIFIED = "(not verified here)"


def claims_of(bundle: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """What the folder's `lineage.json` said, as `erv import` kept it, and the same as sentences.

    None if the folder had none, or if somebody changed what was kept.

    Args:
        bundle: a copy of the version's bundle.
    """
    try:
        says = json.loads((bundle / EXTERNAL).read_text(encoding="utf-8"))["says"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, [f"what it claims of its origin can't be read from {EXTERNAL}"]
    if says is None:
        return None, ["claims nothing of its origin: the folder had no lineage.json"]
    if fault := next(misfits(says), None):
        return None, [f"what it claims of its origin can't be read from {EXTERNAL}: {fault}"]
    return says, claim_facts(says)


def claim_facts(claims: Mapping[str, Any]) -> list[str]:
    """Claims as sentences, those that are claimed of a version before it last."""
    facts = [f"claims: {_plain(sentence)} {UNVERIFIED}" for sentence in _sentences(claims)]
    if claims.get("claims"):
        before = (fact.removeprefix("claims: ") for fact in claim_facts(claims["claims"]))
        facts += [f"claims: there it was imported too, and claimed: {fact}" for fact in before]
    return facts


def _sentences(claims: Mapping[str, Any]) -> Iterator[str]:
    yield "; ".join(
        [
            f"it is a version of {claims.get('model') or 'an unnamed model'}",
            f"bundle {claims.get('bundle') or 'not named'}",
            *origin_facts(claims),
        ]
    )
    stages: Mapping[str, Any] | None = claims.get("stages")
    if stages is None:
        return  # imported by an erv that didn't keep them
    if not stages:
        yield "what made it was not recorded there either"
        return
    made = {path for stage in stages.values() for path in stage["outs"]}
    read = {path: md5 for stage in stages.values() for path, md5 in stage["deps"].items()}
    pinned = [
        f"{path} (md5 {md5})"
        for path, md5 in sorted(read.items())
        if path.endswith(".lock.json") and path not in made
    ]
    yield f"made by {', '.join(stages)}"
    yield f"made from {', '.join(pinned) or 'no pinned data'}"


def _plain(text: str) -> str:
    """Text from elsewhere without what would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
