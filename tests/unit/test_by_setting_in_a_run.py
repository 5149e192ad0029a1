"""The page of figures per setting reads runs of everybody; none of them may fail the run of another."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from erv.environment import load_environment
from flows import artifacts


def test_a_fault_in_a_run_of_others_costs_the_page_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gather(_environment: Any) -> Any:
        raise AttributeError("'float' object has no attribute 'get'")

    monkeypatch.setattr(artifacts, "gather", gather)
    logger = logging.getLogger("flow")
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: logger)
    environment = replace(load_environment(tmp_path), mlflow_uri="http://127.0.0.1:9")
    artifacts.show_by_setting(environment, None, addresses := {})  # type: ignore[arg-type]
    assert addresses == {}
    assert "figures per setting is missing from this run: AttributeError ('float' object has" in caplog.text
