"""Taking turns at the registry where nothing can keep others from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.environment import Environment
from erv.register.turn import registry_turn


def test_without_a_store_it_says_that_nobody_elsewhere_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It took no lease without a word, and `--from N` promised more than held between machines."""
    with registry_turn(Environment(tmp_path, mlflow_uri="http://mlflow.example"), "m") as check:
        check()
    assert caplog.messages == [
        "no lease can be kept: no object store is named (ERV_S3_*); make sure that nobody on another machine"
        " publishes or promotes now"
    ]
