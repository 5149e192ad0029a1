"""Which results that MLflow alone records are those of an experiment that this clone has."""

from __future__ import annotations

import pytest

from erv.results.figures_of import Measured
from erv.results.recorded import _is_one_of
from erv.results.result import Figure, Result


def result(policy: str, dataset: str, **values: float | None) -> Result:
    figures = {name: Figure(value) for name, value in values.items()}
    return Result(policy, dataset, {}, {}, figures, identity=f"{policy} {dataset}")


@pytest.mark.parametrize(
    ("theirs", "one"),
    [
        ({"mafw": {"WAR": 0.5, "UAR": 0.4}}, True),
        ({"mafw": {"WAR": 0.5000001}, "dfew": {"WAR": 0.9}}, True),
        ({"mafw": {"WAR": 0.5, "UAR": 0.3}}, False),
        ({"dfew": {"WAR": 0.5, "UAR": 0.4}}, False),
        ({"mafw": {"EPC": 0.5}}, False),
        ({"mafw": {"FCR": None}}, False),
    ],
)
def test_it_needs_a_figure_in_common_and_none_that_differs(
    theirs: dict[str, dict[str, float | None]], one: bool
) -> None:
    """One of another clone, of the same name and on another data set, was dropped without a word."""
    mine = [result("erv", "mafw", WAR=0.5, UAR=0.4, FCR=None), result("sft", "dfew", WAR=0.5)]
    scopes = {
        scope: {name: Figure(value) for name, value in values.items()} for scope, values in theirs.items()
    }
    assert _is_one_of(mine, "erv", Measured(scopes, {})) is one
    assert not _is_one_of([], "erv", Measured(scopes, {}))
