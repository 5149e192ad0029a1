"""What a version says that it needs: all that is imported while it answers, and nothing of the pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from erv.register.imports import imported
from erv.register.model_content import SERVING_MODEL
from erv.register.requirements import pinned_requirements
from tests.support.tiny_bundle import write_bundle, write_clip

# Answers for a clip, decodes it once more in this process as the worker does, and prints the distributions of
# all modules that are then imported.
ANSWERING = """
import importlib.metadata, json, sys
from pathlib import Path

from erv.answering.predictor import Predictor
from erv.answering.clips import ClipInput, ServedClips
from erv.answering.media import see
from erv.media.decode import decode_task, loader

folder = Path(sys.argv[1])
predictor = Predictor(folder / "bundle", ServedClips(folder))
(row,) = predictor.predict([ClipInput("clip.mp4")])
assert row["error"] is None, row
loader(predictor.rule)()
see(decode_task(folder / "clip.mp4", predictor.rule))
owners = importlib.metadata.packages_distributions()
tops = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted({owner for top in tops for owner in owners.get(top, ()) if owner != "erv"})))
"""


@pytest.mark.slow
def test_all_that_is_imported_while_answering_is_required(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle")
    write_clip(tmp_path / "clip.mp4")
    result = subprocess.run(
        [sys.executable, "-c", ANSWERING, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    answering = {canonicalize_name(name) for name in json.loads(result.stdout.splitlines()[-1])}
    lines = pinned_requirements([SERVING_MODEL, "erv.policies.humanomni"])
    required = {canonicalize_name(Requirement(line).name) for line in lines}
    assert {"av", "decord", "torch", "transformers"} <= answering
    # transformers imports what happens to be installed, whether it needs it or not.
    optional = {"tensorboard", "torchvision", "datasets", "optree"}
    # So do httpcore, tqdm, networkx and torch.
    optional |= {"h2", "hpack", "hyperframe", "sniffio", "colorama", "pydot", "dill"}
    assert answering - required - optional == set()


def test_imports_in_functions_and_worker_processes_count() -> None:
    found = imported([SERVING_MODEL]).outside
    assert {"av", "decord", "PIL", "torch", "mlflow", "boto3", "safetensors"} <= found


def test_what_is_only_passed_through_is_not_needed() -> None:
    """The worker takes `erv.pipeline.process`; the package around it also runs DVC, in functions."""
    assert "dvc" in imported(["erv.pipeline.graph"]).outside
    assert not imported([SERVING_MODEL]).outside & {"dvc", "dvc_data", "prefect", "great_expectations", "trl"}


def test_a_family_needs_what_it_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "erv"
    (package / "policies").mkdir(parents=True)
    (package / "policies/__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "policies/new.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import json, one.part\n"
        "if TYPE_CHECKING:\n    import types_only\nelse:\n    import two\n"
        "class A:\n    def b(self):\n        from three.x import y\n"
    )
    monkeypatch.setattr("erv.register.imports.PACKAGE", package)
    assert imported(["erv.policies.new"]).outside == {"one", "two", "three"}


def test_versions_are_exact_and_without_build_labels() -> None:
    lines = pinned_requirements(["erv.media.resizing"])
    assert any(line.startswith("torch==") for line in lines)
    assert all("+" not in line and Requirement(line).specifier for line in lines)
    assert lines == sorted(lines)
