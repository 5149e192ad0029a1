"""`erv import` on a real registry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.tracking.lock_entries import client_of
from tests.integration.scratch import Scratch
from tests.support.tiny_bundle import SERVING, write_models

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_two_imports_at_once_keep_apart(stack: Environment, tmp_path: Path) -> None:
    """They wrote the same folder, and one could register what the other had put there."""
    (tmp_path / "workspace").mkdir()
    scratch = Scratch(tmp_path / "workspace", stack)
    write_models(tmp_path)
    started = {}
    for name in ("one", "two"):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "policy", folder)
        shutil.copytree(tmp_path / "verifier", folder / "verifier")
        (folder / "serving.json").write_text(json.dumps(SERVING))
        (folder / "README.md").write_text(f"The card of {name}.\n")
        started[name] = scratch.start("import", str(folder), "--name", f"import-{name}")
    for name, command in started.items():
        assert command.process.wait(300) == 0, command.text()
        assert f"import-{name} version 1 registered as external" in command.text()
        command.end()
    client = client_of(scratch.environment)
    for name in started:
        version = client.get_model_version(f"import-{name}", "1")
        assert version.description.endswith(f"Its card said:\n\nThe card of {name}.\n")
        assert version.tags["erv.external"] == "true"
    assert [path for path in (scratch.folder / ".erv/external").rglob("*") if path.is_file()] == []
