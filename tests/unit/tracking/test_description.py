"""How runs are named and described."""

from __future__ import annotations

from erv.parameters import Change
from erv.tracking.description import CHAMPION, LAST, Reference, note, speaking_name
from erv.tracking.rest import Run, RunData, RunInfo

FOLD = {"ingest.fold": "1"}


def reference(kind: str, changed: list[Change] | None) -> Reference:
    info = RunInfo("0123456789abcdef", "1", "erv · fold 1", "FINISHED", 0, 0, "")
    return Reference(kind, Run(info, RunData()), changed)


def change(name: str, now: str = "0.5") -> Change:
    return Change(name, "1", now)


def test_a_first_run_is_named_by_policy_and_fold() -> None:
    assert speaking_name(["erv"], [], FOLD) == "erv · fold 1"


def test_a_run_is_named_by_what_differs_from_the_champion() -> None:
    references = [
        reference(CHAMPION, [change("variants.erv.weights.explanation")]),
        reference(LAST, [change("seed", "7")]),
    ]
    assert speaking_name(["erv"], references, FOLD) == "erv · explanation 0.5 · fold 1"


def test_without_a_champion_by_what_differs_from_the_last_run() -> None:
    assert speaking_name(["erv"], [reference(LAST, [change("seed", "7")])], FOLD) == "erv · seed 7 · fold 1"
    unknown = [reference(CHAMPION, None), reference(LAST, [change("seed", "7")])]
    assert speaking_name(["erv"], unknown, FOLD) == "erv · seed 7 · fold 1"


def test_names_that_end_alike_are_told_apart() -> None:
    references = [reference(LAST, [change("sft.epochs", "3"), change("grpo.epochs", "2")])]
    assert speaking_name(["erv"], references, {}) == "erv · sft.epochs 3 · grpo.epochs 2"


def test_a_long_list_is_counted_and_what_decides_nothing_left_out() -> None:
    changed = [change(f"grpo.{letter}", "1") for letter in "abcde"]
    changed += [change("machine.processes", "2"), Change("ingest.fold", "1", "2")]
    name = speaking_name(["sft", "grpo"], [reference(LAST, changed)], {"ingest.fold": "2"})
    assert name == "sft, grpo · a 1 · b 1 · c 1 · 2 more · fold 2"


def test_the_note_lists_every_difference() -> None:
    text = note([reference(CHAMPION, [Change("a", "x|y", "z" * 100)]), reference(LAST, [])])
    assert "against the champion's run, erv · fold 1 (`01234567`):" in text
    assert f"| a | x\\|y | {'z' * 79}… |" in text
    assert "since the last run, erv · fold 1 (`01234567`): the same." in text


def test_the_note_says_when_nothing_is_known() -> None:
    assert "unknown, it recorded none" in note([reference(LAST, None)])
    assert "Compared with no earlier run" in note([])
