"""Figures from comparisons and from metrics of runs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from erv.results.figures_of import Measured, in_comparison, of_comparison, of_values, scopes_of
from erv.results.result import Figure


def test_a_comparison_of_an_older_erv_lacks_what_it_did_not_record() -> None:
    metrics = {"WAR": {"value": 0.5, "low": 0.4, "high": 0.6, "p": 0.1}, "words": {"value": 9.0}}
    found = of_comparison({"policies": {"erv": {"overall": metrics}}}, "erv")
    assert found.scopes == {"overall": {"WAR": Figure(0.5, 0.4, 0.6)}}
    assert (found.clips, found.judge, found.intervals) == ({}, "unknown", "unknown")


def test_metrics_of_a_run_have_no_intervals_and_only_ours_count() -> None:
    values = {"erv/mafw/WAR": 0.5, "erv/mafw/EPC by lexical": 0.4, "sft/mafw/WAR": 0.3, "stage/seconds": 9.0}
    assert of_values(values, "erv/") == ({"mafw": {"WAR": Figure(0.5)}}, {})


def test_all_clips_of_a_single_data_set_are_shown_once() -> None:
    def scopes(*names: str) -> list[str]:
        return list(scopes_of(Measured({name: {} for name in names}, {})))

    assert scopes("overall", "mafw") == ["mafw"]
    assert scopes("overall", "dfew", "mafw") == ["overall", "dfew", "mafw"]
    assert scopes("overall") == ["overall"]


HALF = {"policies": {"erv": {"mafw": {"WAR": {"value": 0.5}}}}}


@pytest.mark.parametrize(
    "damaged",
    [
        {"policies": {"erv": {"mafw": {"WAR": 0.5}}}},
        {"policies": {"erv": {"mafw": {"WAR": {"value": "half"}}}}},
        {"policies": {"erv": {"mafw": {"WAR": {"value": True}}}}},
        {"policies": {"erv": {"mafw": {"WAR": {"value": math.nan}}}}},
        {"policies": {"erv": {"mafw": 0.5}}},
        {"policies": {"erv": [0.5]}},
        {"policies": ["erv"]},
        {"policy": "erv"},
        HALF | {"clips": {"mafw": "many"}},
        HALF | {"clips": [12]},
        HALF | {"confidence": "high"},
    ],
)
def test_a_comparison_of_another_form_is_named_and_left_out(damaged: dict[str, Any]) -> None:
    files = SimpleNamespace(remarks=[])
    assert in_comparison(damaged, "erv", files, "a.json of MLflow run 0123abcd") is None
    assert files.remarks == [
        "a.json of MLflow run 0123abcd: the figures of erv have a form that no report has; left out"
    ]


def test_a_comparison_without_the_policy_or_with_a_judge_in_words_is_none_of_those() -> None:
    files = SimpleNamespace(remarks=[])
    assert in_comparison(HALF, "sft", files, "a.json") is None
    found = in_comparison(HALF | {"judge": "name"}, "erv", files, "a.json")
    assert found is not None
    assert found.scopes["mafw"]["WAR"].value == 0.5
    assert files.remarks == []


def test_a_number_of_clips_that_is_none_is_unknown() -> None:
    assert of_values({"mafw/WAR": 0.5, "mafw/clips": math.nan})[1] == {}
