"""What may be said of a sweep is the same for its command, its form and what checks it."""

from __future__ import annotations

import dataclasses
import inspect
import re

import click
import pytest

from erv.commands.sweep import run
from erv.sweep.measures import MEASURES
from erv.sweep.options import DIRECTIONS, METRICS, MOST_AT_A_TIME, MOST_TRIALS, NAME, SAMPLERS
from erv.sweep.plan import Plan
from erv.sweep.wish import Wish
from flows.sweep import sweep

FORM = sweep.parameters.properties


def test_command_form_and_wish_have_the_same_options() -> None:
    wished = {item.name: item.default for item in dataclasses.fields(Wish)}
    formed = {name: item.default for name, item in inspect.signature(sweep.fn).parameters.items()}
    assert list(formed.items()) == [
        (name, inspect.Parameter.empty if default is dataclasses.MISSING else default)
        for name, default in wished.items()
    ]
    assert {parameter.name for parameter in run.params} == {*wished, "space"}


def test_what_is_given_of_a_plan_is_what_a_plan_has() -> None:
    assert Wish("beta").planned() == {}
    whole = Wish("beta", (), 1, 1, "sft", "loss", "minimize", ("a=1",), 0, "tpe", "no", 9)
    made = {"name", "space", "commit", "patch", "parameters"}
    assert set(whole.planned()) == {item.name for item in dataclasses.fields(Plan)} - made
    assert whole.planned()["seed"] == 0
    assert whole.planned()["prune"] is False


def test_metrics_are_those_that_stages_measure() -> None:
    assert set(METRICS) == {measure.metric for known in MEASURES.values() for measure in known}


@pytest.mark.parametrize(
    ("option", "choices"), [("metric", METRICS), ("direction", DIRECTIONS), ("sampler", SAMPLERS)]
)
def test_command_and_form_offer_the_same_choices(option: str, choices: tuple[str, ...]) -> None:
    (offered,) = [parameter.type for parameter in run.params if parameter.name == option]
    assert isinstance(offered, click.Choice)
    assert [choice for choice in offered.choices if choice] == list(choices)
    assert FORM[option]["enum"] == ["", *choices]


@pytest.mark.parametrize(
    ("option", "most"), [("trials", MOST_TRIALS), ("prune_after", MOST_TRIALS), ("at_a_time", MOST_AT_A_TIME)]
)
def test_command_and_form_have_the_same_limits(option: str, most: int) -> None:
    (limits,) = [parameter.type for parameter in run.params if parameter.name == option]
    assert isinstance(limits, click.IntRange)
    assert (limits.min, limits.max) == (1, most)
    assert (FORM[option]["minimum"], FORM[option]["maximum"]) == (0, most)


def test_the_form_refuses_the_names_that_the_command_refuses() -> None:
    assert FORM["name"]["pattern"] == NAME
    assert re.search(NAME, "beta-1")
    assert not re.search(NAME, "größe")
