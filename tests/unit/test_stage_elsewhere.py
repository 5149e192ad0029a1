"""A stage that is placed elsewhere doesn't run here, whoever placed it, except on its worker."""

from __future__ import annotations

import pytest

from erv.errors import ErvError
from erv.settings import Settings, load_settings
from erv.stage import _refuse_elsewhere
from tests.support.paths import ROOT


def placed(placement: dict[str, str]) -> Settings:
    settings = load_settings(ROOT / "params.yaml")
    machine = settings.machine.model_copy(update={"placement": placement})
    return settings.model_copy(update={"machine": machine})


@pytest.fixture(autouse=True)
def _shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ERV_PLACED_IN", "ERV_SENT_TO"):
        monkeypatch.delenv(name, raising=False)


def test_by_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_elsewhere("grpo@erv", placed({"sft": "gpu"}))
    with pytest.raises(ErvError, match="its placement sends this stage to work pool 'gpu'"):
        _refuse_elsewhere("grpo@erv", placed({"grpo": "gpu"}))
    for pool in ("gpu", "other"):  # which a run was given in place of that in the file
        monkeypatch.setenv("ERV_PLACED_IN", pool)
        _refuse_elsewhere("grpo@erv", placed({"grpo": "gpu"}))


def test_by_a_run_whose_file_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What DVC can't restore after all would train here, for days."""
    monkeypatch.setenv("ERV_SENT_TO", "gpu")
    with pytest.raises(ErvError, match="its placement sends this stage to work pool 'gpu'"):
        _refuse_elsewhere("grpo@erv", placed({}))
