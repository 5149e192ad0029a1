"""What two results have in common, and in what they differ."""

from __future__ import annotations

import pytest

from erv.errors import EvaluationError
from erv.results.differences import apart, between, differing, items_of, shared, unknown
from erv.results.published import published
from erv.results.result import Result


def result(policy: str = "erv", *, complete: bool = True, published: bool = False, **setting: str) -> Result:
    identity = f"{policy} {setting}"
    return Result(policy, "mafw", setting, {}, {}, complete=complete, published=published, identity=identity)


def test_what_applies_to_some_is_shared_if_it_is_the_same_there() -> None:
    rows = [result("sft", seed="1", method="sft"), result(seed="1", method="grpo", beta="0.02")]
    assert shared(rows) == {"seed": "1", "beta": "0.02"}
    assert differing(rows) == ["method"]


def test_what_is_unknown_of_some_is_counted_and_no_difference() -> None:
    rows = [result(fold="1", seed="1"), result(complete=False, seed="2"), result(fold="1", seed="1")]
    assert (shared(rows), differing(rows), unknown(rows)) == ({"fold": "1"}, ["seed"], {"fold": 1})


def test_what_is_unknown_of_all_is_neither_shared_nor_differing() -> None:
    rows = [result(hardware="unknown"), result(hardware="unknown (asked for: cuda)")]
    assert (shared(rows), differing(rows), unknown(rows)) == ({}, [], {"hardware": 2})


def test_a_published_figure_says_nothing_of_what_its_source_does_not_state() -> None:
    ours, theirs = result(fold="1", seed="1", method="grpo"), result(published=True, method="sft")
    found = apart(ours, theirs, items_of([ours, theirs]))
    assert found.differing == ("method",)
    assert {"fold", "seed"} <= set(found.untold)


def test_of_two_that_state_nothing_it_is_said_what_cannot_be_told() -> None:
    """A figure without its setting is no figure under the same setting."""
    theirs = [
        item for item in published() if item.policy in ("HiCMAE", "MAE-DFER") and item.dataset == "dfew"
    ]
    rows = [result(fold="1", method="grpo", beta="0.02"), *theirs]
    one, other = theirs
    verdict, untold = between(rows, one.key, other.key)
    assert verdict.endswith("nothing is known of both settings, so in what they differ can't be told")
    assert untold.startswith("  can't be told, as neither says: Frame source, Fold, Split, ")
    assert untold.endswith(
        " and 2 other parameters"
    )  # those of the first row, in which the page compares them
    # They needn't be known of any other result for that.
    assert "Frame source, Fold, Split" in between(theirs, one.key, other.key)[1]


def test_one_known_difference_is_not_said_to_be_the_only_one() -> None:
    rows = [result(fold="1", hardware="unknown"), result(fold="2", hardware="cpu")]
    assert between(rows, rows[0].key, rows[1].key)[0].endswith(
        "they differ in one setting, and in 1 other it can't be told"
    )
    rows = [result(fold="1", hardware="unknown"), result(fold="1", hardware="cpu")]
    assert between(rows, rows[0].key, rows[1].key)[0].endswith(
        "no setting that is known of both differs, and in 1 other it can't be told"
    )


def test_two_results_that_differ_in_several_settings_are_not_called_a_comparison() -> None:
    rows = [result("sft", fold="1", method="sft"), result(fold="2", method="grpo", beta="0.02")]
    assert between(rows, rows[0].key, rows[1].key) == [
        f"sft on mafw ({rows[0].key}) and erv on mafw ({rows[1].key}): they differ in 2 settings, so the"
        " difference of their figures is not that of one thing",
        "  Method: sft → grpo",
        "  fold: 1 → 2",
    ]
    with pytest.raises(EvaluationError, match="'nothing': no result has this key"):
        between(rows, "nothing", rows[0].key)


def test_what_follows_from_the_method_is_no_difference_of_its_own() -> None:
    cold, warm = result("sft", method="sft"), result(method="grpo", beta="0.02")
    assert apart(cold, warm, ["method", "beta"]).differing == ("method",)
    assert apart(result(method="grpo"), warm, ["method", "beta"]).differing == ("beta",)
