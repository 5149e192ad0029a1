"""The judge of `make chaos` itself: it must be able to fail."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.ledger import DAMAGE, SCENES, Ledger
from tests.chaos.place import Ended, flip_a_bit


def clean(kills: int = 50) -> Ledger:
    ledger = Ledger()
    for scene in SCENES:
        ledger.add(scene, "faults")
    ledger.add(SCENES[0], "kills", kills)
    return ledger


def test_a_clean_run_passes() -> None:
    assert clean().failures(kills=50) == []


@pytest.mark.parametrize("kind", DAMAGE)
def test_any_damage_fails(kind: str) -> None:
    ledger = clean()
    ledger.damage(SCENES[0], kind, "an output differs")
    assert ledger.failures(kills=50) == [f"1 {kind}"]
    assert "an output differs" in ledger.table()


def test_a_scene_that_was_not_tried_fails() -> None:
    ledger = clean()
    ledger.counts["full disk"].clear()
    assert ledger.failures(kills=50) == ["full disk: never tried"]


def test_too_few_kills_fail() -> None:
    assert clean(kills=49).failures(kills=50) == ["only 49 of 50 kills were made"]


@pytest.mark.parametrize(
    ("text", "clear"),
    [
        ("error: clip 7 of mafw is broken; take another one", True),
        ("some line\nERROR: failed to pull data from the cloud", True),
        ("Traceback (most recent call last):\n  File\nValueError: no\nerror: ValueError", False),
        ("", False),
        ("Killed", False),
    ],
)
def test_a_failure_without_a_sentence_is_unclear(text: str, clear: bool) -> None:
    assert Ended(1, text).clear is clear


def test_a_flipped_bit_keeps_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(1000))
    path.chmod(0o444)
    before = path.stat()
    flip_a_bit(path, random.Random(0))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_mode) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_mode,
    )
    assert sum(byte.bit_count() for byte in path.read_bytes()) == 1
