"""Figures from comparisons and from metrics of runs."""

from __future__ import annotations

from erv.results.figures_of import Measured, of_comparison, of_values, scopes_of
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
