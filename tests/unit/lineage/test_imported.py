"""What an imported version claims of its origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erv.lineage.imported import claim_facts, claims_of

STAGES = {
    "ingest@mafw": {
        "entry": "e" * 64,
        "cmd": "python stages/ingest.py",
        "deps": {"data/sources/mafw.lock.json": "1" * 32, "src/erv/ingest": "2" * 32},
        "outs": {"data/manifest/mafw.parquet": "3" * 32},
        "params": {},
    },
    "sft": {
        "entry": "f" * 64,
        "cmd": "python stages/sft.py",
        "deps": {"data/manifest/mafw.parquet": "3" * 32},
        "outs": {"models/policy/sft": "4" * 32},
        "params": {},
    },
}
CLAIMS = {
    "model": "theirs",
    "bundle": "b" * 64,
    "commit": "c" * 40,
    "dirty": True,
    "started_by": "Ann (ann@box)",
    "stages": STAGES,
}


def test_claims_are_told_as_claims() -> None:
    assert claim_facts(CLAIMS) == [
        f"claims: it is a version of theirs; bundle {'b' * 64}; git commit {'c' * 40}, with changes that are"
        " not in it; started by Ann (ann@box) (not verified here)",
        "claims: made by ingest@mafw, sft (not verified here)",
        f"claims: made from data/sources/mafw.lock.json (md5 {'1' * 32}) (not verified here)",
    ]


def test_what_an_older_import_kept_is_told_as_far_as_it_goes() -> None:
    kept = {key: CLAIMS[key] for key in ("model", "bundle")}
    assert claim_facts(kept) == [f"claims: it is a version of theirs; bundle {'b' * 64} (not verified here)"]


def test_claims_of_a_version_that_was_imported_there_are_told_too() -> None:
    facts = claim_facts({"model": "between", "bundle": "d" * 64, "stages": {}, "claims": CLAIMS})
    assert facts[1] == "claims: what made it was not recorded there either (not verified here)"
    assert facts[-1].startswith("claims: there it was imported too, and claimed: made from data/sources/mafw")


def test_nothing_in_a_claim_reaches_the_terminal_as_a_command() -> None:
    text = "\n".join(claim_facts({"model": "\x1b[2J\rtheirs", "bundle": "b"}))
    assert text == "claims: it is a version of \ufffd[2J\ufffdtheirs; bundle b (not verified here)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"says": None}, "claims nothing of its origin: the folder had no lineage.json"),
        ({}, "what it claims of its origin can't be read from external.json"),
        ({"says": {"stages": []}}, "can't be read from external.json: stages is not an object"),
    ],
)
def test_where_there_is_nothing_to_tell_that_is_said(tmp_path: Path, content: Any, said: str) -> None:
    (tmp_path / "external.json").write_text(json.dumps(content))
    claims, (fact,) = claims_of(tmp_path)
    assert claims is None
    assert said in fact
