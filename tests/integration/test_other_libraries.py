"""Results that were made with other libraries than the locked ones are refused, or on record."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from erv.environment import Environment
from erv.libraries import lock_of, running_python
from erv.lineage.stages import StageTrees
from erv.pipeline import read_lock_entries
from erv.tracking.lock_entries import reconcile, search
from tests.integration.scratch import Scratch

pytestmark = pytest.mark.integration


def test_plain_dvc_refuses_or_says_so_in_mlflow_and_lineage(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computed with the old torch, and wrote the hash of the new pins into dvc.lock."""
    scratch = Scratch(tmp_path_factory.mktemp("libraries"), stack)
    folder = scratch.folder
    (folder / "requirements").mkdir()
    (folder / lock_of(running_python())).write_text("torch==0.0.1\n")
    differs = f"torch {version('torch')} instead of 0.0.1"
    monkeypatch.chdir(folder)
    refused = scratch.python("-m", "dvc", "repro", "make@a", check=False)
    assert refused.returncode != 0
    said = f"error: make@a: the installed libraries are not those of {lock_of(running_python())}, with which"
    assert said in refused.stderr
    assert differs in refused.stderr
    assert not (folder / "made/a.txt").exists()
    assert "make@a" not in read_lock_entries()

    monkeypatch.setenv("ERV_OTHER_LIBRARIES", "accept")
    scratch.python("-m", "dvc", "repro", "make@a")
    lock = read_lock_entries()
    reconcile(scratch.environment, lock)
    (run,) = search(scratch.environment, "tags.`erv.stage` = 'make'")
    assert run.data.tags["erv.other_libraries"] == differs
    node = StageTrees(scratch.environment).node(lock, "make@a", None, set())
    assert f"ran with other libraries than the locked ones: {differs}" in node.facts
