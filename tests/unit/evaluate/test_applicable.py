"""Figures about explanations don't apply to a policy that gives none: they are left out, not 0."""

import pytest

from erv.errors import EvaluationError
from erv.evaluate.applicable import without_explanations
from erv.evaluate.compare import compare, difference, metrics_table, table_notes
from erv.evaluate.evaluate import measure

ROWS = [
    {
        "dataset": "mafw",
        "clip_id": f"{number}",
        "split": "test",
        "label": label,
        "completion": f"<think></think>\n<answer>{label}</answer>",
        "predicted": label if number % 3 else "fear",
        "judged": None,
        "sentences": 0,
    }
    for number, label in enumerate(["anger", "sadness", "fear"] * 8)
]
THINKING = [row | {"completion": "<think>Sad.</think>", "judged": "sadness", "sentences": 1} for row in ROWS]


def test_metrics_have_null_for_what_does_not_apply() -> None:
    measured = measure(ROWS)
    marked = without_explanations(measured)
    for scope in ("overall", "mafw"):
        applies = {name for name, value in marked[scope].items() if value is not None}
        assert {"WAR", "UAR", "clips", "malformed", "outside"} <= applies
        assert not {"EEA", "EPC", "FCR", "EEA_released", "sentences"} & applies
        assert {name: measured[scope][name] for name in applies} == {n: marked[scope][n] for n in applies}


def test_a_comparison_leaves_out_what_does_not_apply() -> None:
    everyone = {"sft": THINKING, "sft_direct": ROWS, "erv": THINKING}
    found = compare(everyone, samples=20, confidence=0.95, seed=0, unexplained=["sft_direct"])
    for scope in ("overall", "mafw"):
        assert set(found["policies"]["sft_direct"][scope]) == {"WAR", "UAR"}
        assert set(found["differences"]["erv-sft_direct"][scope]) == {"WAR", "UAR"}
        assert "EPC" in found["policies"]["sft"][scope]
        assert "EPC" in found["differences"]["erv-sft"][scope]
        assert set(found["verdicts"]["erv-sft_direct"][scope]) == {"WAR", "UAR"}
        assert set(found["classes"]["sft_direct"][scope]["anger"]) == {"clips", "WAR", "precision"}
        assert "EPC" in found["classes"]["sft"][scope]["anger"]
    rows = {row["policy"]: row for row in metrics_table(found)}
    assert (rows["sft_direct"]["EPC"], rows["sft_direct"]["WAR"] == "-") == ("-", False)
    assert "sft_direct" in table_notes(found)[2]  # its UAR as released
    assert "sft_direct" not in table_notes(found)[3]  # but no EEA
    difference(found, "sft_direct", "erv", "overall", "WAR")
    with pytest.raises(EvaluationError, match="EPC doesn't apply to both 'erv' and 'sft_direct'"):
        difference(found, "erv", "sft_direct", "overall", "EPC")


def test_names_that_begin_or_end_alike_are_told_apart() -> None:
    everyone = {"sft": THINKING, "direct": ROWS, "direct-long": THINKING, "erv-direct": THINKING}
    found = compare(everyone, samples=20, confidence=0.95, seed=0, unexplained=["direct"])
    for pair in ("direct-long-sft", "erv-direct-sft", "erv-direct-direct-long"):
        assert "EPC" in found["differences"][pair]["overall"]
        assert "EPC" in found["verdicts"][pair]["overall"]
    for pair in ("direct-sft", "direct-long-direct", "erv-direct-direct"):
        assert set(found["differences"][pair]["overall"]) == {"WAR", "UAR"}


def test_what_does_not_apply_is_not_among_the_metrics_tested_together() -> None:
    """Holm's correction is for two tests here, not for six."""
    better = [row | {"predicted": row["label"]} for row in ROWS]
    found = compare(
        {"sft": ROWS, "direct": better}, samples=20, confidence=0.95, seed=0, unexplained=["direct"]
    )
    said = found["verdicts"]["direct-sft"]["overall"]
    assert said["WAR"]["p_holm"] <= 2 * said["WAR"]["p"]
