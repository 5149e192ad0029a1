"""Workers: which names of pools they take, and how often they ask for runs."""

from __future__ import annotations

import os

import pytest

from erv.environment import load_environment
from erv.errors import SettingsError
from erv.settings.pool_name import check_pool_name
from erv.stack import launch
from erv.stack.lost_runs import _serves
from flows import shared_pools


@pytest.mark.parametrize("name", ["gpu pool", "../x", "", "-x", "a" * 65, "gpu\n"])
def test_a_pool_that_no_placement_can_name(name: str) -> None:
    """It was made all the same, or refused with the pattern and the address of a library's manual."""
    for refuse in (check_pool_name, launch.serve_shared, lambda name: shared_pools.main([name])):
        with pytest.raises(
            SettingsError, match=r"can't be the name of a work pool; expected 1 to 64 letters"
        ):
            refuse(name)


def test_names_that_a_placement_can_name() -> None:
    for name in ("gpu", "A100.big_one-2", "a" * 64):
        check_pool_name(name)


@pytest.mark.parametrize(("given", "seconds"), [(None, 3.0), ("1.5", 1.5)])
def test_a_worker_asks_every_three_seconds_or_as_often_as_its_variable_says(
    monkeypatch: pytest.MonkeyPatch, given: str | None, seconds: float
) -> None:
    """With Prefect's ten seconds, a run without work took five seconds more, and so did each placed stage."""
    became: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda _path, _command, variables: became.append(variables))
    monkeypatch.delenv("PREFECT_WORKER_QUERY_SECONDS", raising=False)
    if given is not None:
        monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", given)
    launch._become_worker("gpu", "process", load_environment())
    (variables,) = became
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", variables["PREFECT_WORKER_QUERY_SECONDS"])
    from prefect.settings import Settings

    assert Settings().worker.query_seconds == seconds


@pytest.mark.parametrize(
    ("command", "served"),
    [
        ("python -m prefect worker start --pool gpu --type process", True),
        ("prefect worker start --type process -p gpu", True),
        ("prefect worker start --pool=gpu", True),
        ("prefect worker start --pool gpu2", False),
        ("prefect work-pool inspect --pool gpu", False),
    ],
)
def test_a_living_worker_is_known_by_its_command(command: str, served: bool) -> None:
    assert _serves(command.split(), "gpu") is served
