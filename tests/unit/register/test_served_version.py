"""What a server says that it serves."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from erv.register.record import RECORD
from erv.register.served_version import say_what_is_served, served

BUNDLE = "1f0c" * 8


def test_a_published_version_is_named_with_its_bundle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "registered_model_meta").write_text("model_name: emotion-policy\nmodel_version: '2'\n")
    (tmp_path / RECORD).write_text(json.dumps({"model": "emotion-policy", "bundle": BUNDLE}))
    with caplog.at_level(logging.INFO, logger="uvicorn.error"):
        say_what_is_served(tmp_path)
    assert caplog.messages == [f"serving emotion-policy version 2 (bundle {BUNDLE})"]


def test_a_folder_says_what_it_knows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert served(tmp_path) == "a model without a record"
    (tmp_path / RECORD).write_text(json.dumps({"model": "emotion-policy", "bundle": BUNDLE}))
    assert served(tmp_path) == f"emotion-policy (bundle {BUNDLE})", "exported, so no registry is asked"
    (tmp_path / RECORD).write_text("{")
    assert served(tmp_path) == "a model without a record"
    assert caplog.messages[0].startswith("lineage.json can't be read: ")
