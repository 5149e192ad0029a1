"""`dvc.yaml` says all that a stage depends on: its script, its code, its parameters."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from erv.pipeline import read_stages
from erv.settings import parse_settings
from tests.support.paths import ROOT

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = list(PIPELINE)
# Parameters that a stage reads and that cannot change what it writes; anything else must be in `params`.
WITHOUT_EFFECT = {
    "validate": {"validate.workers"},
    "extract": {"extract.workers", "extract.dask"},  # the shards are the same whatever decodes them
    "grpo": {"grpo.train"},  # what else is trained
    "evaluate": {"evaluate.policies"},  # what else is evaluated
}


def listed(stage: str) -> list[str]:
    return [str(key) for key in PIPELINE[stage].get("params", [])]


def test_the_ten_stages_in_order() -> None:
    assert STAGES == [
        "ingest", "validate", "extract", "sft", "distill", "train_erv", "grpo", "evaluate", "report",
        "register",
    ]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_its_script_exists_and_is_a_dependency(stage: str) -> None:
    assert f"python -m stages.{stage} " in PIPELINE[stage]["cmd"]
    assert (ROOT / "stages" / f"{stage}.py").is_file()
    assert f"stages/{stage}.py" in PIPELINE[stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_it_names_each_dependency_once(stage: str) -> None:
    assert len(set(PIPELINE[stage]["deps"])) == len(PIPELINE[stage]["deps"])


@pytest.mark.parametrize("stage", STAGES)
def test_its_parameters_exist(stage: str) -> None:
    for key in listed(stage):
        for value in _matrix_values(stage):
            found: Any = PARAMS
            for part in re.sub(r"\$\{item\.\w+\}", value, key).split("."):
                assert isinstance(found, dict), f"dvc.yaml, {stage}: {key} is not in params.yaml"
                assert part in found, f"dvc.yaml, {stage}: {key} is not in params.yaml"
                found = found[part]


@pytest.mark.parametrize("stage", STAGES)
def test_it_reads_only_the_parameters_it_lists(stage: str) -> None:
    keys = [re.sub(r"\.\$\{item\.\w+\}", "", key) for key in listed(stage)]
    allowed = WITHOUT_EFFECT.get(stage, set())
    for read in sorted(_settings_read(ROOT / "stages" / f"{stage}.py")):
        whole = [key for key in keys if read == key or read.startswith(f"{key}.")]
        parts = {key for key in keys if key.startswith(f"{read}.")} | {
            key for key in allowed if key.startswith(f"{read}.")
        }
        complete = bool(parts) and _leaves(read) <= _leaves_of(parts)
        assert whole or read in allowed or complete, (
            f"stages/{stage}.py reads {read}, but dvc.yaml does not list it under params"
        )


def test_the_matrices_are_the_settings_own() -> None:
    assert PIPELINE["grpo"]["matrix"]["variant"] == "${grpo.train}"
    assert PIPELINE["evaluate"]["matrix"]["policy"] == "${evaluate.policies}"
    assert "rft" not in PARAMS["grpo"]["train"], "the demo does without"


def test_a_variant_is_switched_on_in_the_parameters_alone(tmp_path: Path) -> None:
    """What `dvc exp run -S 'grpo.train=[r1_omni,erv,rft]' -S 'evaluate.policies=[...]'` writes."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["grpo"]["train"] += ["rft"]
    raw["evaluate"]["policies"] += ["rft"]
    parse_settings(raw)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    stages = {stage.name: stage for stage in read_stages(tmp_path)}
    assert "sft" in stages["grpo@rft"].upstream
    assert "grpo@rft" in stages["evaluate@rft"].upstream
    for last in ("report", "register"):
        assert {"evaluate@sft", "evaluate@erv", "evaluate@rft"} <= set(stages[last].upstream)


def test_dvc_itself_reads_the_graph() -> None:
    stages = {stage.name: stage for stage in read_stages(ROOT)}
    assert len(stages) == 3 * 3 + 3 + 2 + 3 + 2
    assert stages["grpo@erv"].upstream == tuple(
        sorted(["extract@dfew", "extract@mafw", "ingest@dfew", "ingest@mafw", "sft", "train_erv"])
    )
    assert "report" in stages["register"].upstream
    for last in ("report", "register"):
        assert {"evaluate@sft", "evaluate@r1_omni", "evaluate@erv"} <= set(stages[last].upstream)


def test_every_output_is_cached() -> None:
    for stage, definition in PIPELINE.items():
        for out in [*definition.get("outs", []), *definition.get("metrics", [])]:
            assert isinstance(out, str), (
                f"{stage}: {out}: a flag on an out breaks restores from the run cache"
            )


def _matrix_values(stage: str) -> list[str]:
    matrix = PIPELINE[stage].get("matrix")
    if not matrix:
        return [""]
    (values,) = matrix.values()
    found: Any = PARAMS
    for part in str(values).strip("${}").split("."):
        found = found[part]
    return [str(value) for value in found]


def _settings_read(path: Path) -> set[str]:
    """What a script reads of `settings`, as dotted names: the longest attribute chains."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Attribute):
            chain: list[str] = []
            inner: ast.AST = node
            while isinstance(inner, ast.Attribute):
                chain.insert(0, inner.attr.rstrip("_"))
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id == "settings":
                found.add(".".join(_known(chain)))
                return
        for child in ast.iter_child_nodes(node):
            visit(child)

    tree = ast.parse(path.read_text(encoding="utf-8"))
    local = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                if isinstance(argument, ast.Name) and argument.id == "settings":
                    called = ast.unparse(node.func)
                    assert called in local, (
                        f"{path.name} passes all settings to {called}: it could read anything"
                    )
    visit(tree)
    return found


def _known(chain: list[str]) -> list[str]:
    """The part of an attribute chain that is parameters; the rest are methods of their values."""
    found: Any = PARAMS
    known = []
    for part in chain:
        if not isinstance(found, dict) or part not in found:
            break
        known.append(part)
        found = found[part]
    assert known, f"settings.{'.'.join(chain)} is not in params.yaml"
    return known


def _leaves(key: str) -> set[str]:
    found: Any = PARAMS
    for part in key.split("."):
        found = found[part]
    if not isinstance(found, dict):
        return {key}
    return {leaf for part in found for leaf in _leaves(f"{key}.{part}")}


def _leaves_of(keys: set[str]) -> set[str]:
    return {leaf for key in keys for leaf in _leaves(key)}
