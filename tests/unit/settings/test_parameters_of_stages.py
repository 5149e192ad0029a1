"""Parameters of the stages: what one reads is listed, and what a change of each runs again is known."""

from __future__ import annotations

import ast
import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from erv.commands.params import command
from erv.doctor.reruns import WITHOUT_STAGES, Reruns, all_reruns
from erv.pipeline import PipelineStage, read_stages
from erv.settings import parse_settings
from tests.support.paths import ROOT

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = list(PIPELINE)


def listed(stage: str) -> list[str]:
    return [str(key) for key in PIPELINE[stage].get("params", [])]


@pytest.fixture(scope="module")
def reruns() -> dict[str, Reruns]:
    return {item.name: item for item in all_reruns(ROOT)}


def stages_with(folder: Path, **changes: Any) -> dict[str, PipelineStage]:
    """The stages that DVC makes of the shipped `dvc.yaml` and changed parameters, by name."""
    raw = copy.deepcopy(PARAMS)
    for section, values in changes.items():
        raw[section] = raw[section] | values if isinstance(values, dict) else values
    parse_settings(raw)
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".dvc").mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    shutil.copy(ROOT / "dvc.yaml", folder)
    return {stage.name: stage for stage in read_stages(folder)}


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
    for read in sorted(_settings_read(ROOT / "stages" / f"{stage}.py")):
        if read.partition(".")[0] == "machine":
            continue
        whole = [key for key in keys if read == key or read.startswith(f"{key}.")]
        parts = {key for key in keys if key.startswith(f"{read}.")}
        complete = bool(parts) and _leaves(read) <= _leaves_of(parts)
        assert whole or complete, (
            f"stages/{stage}.py reads {read}, but dvc.yaml does not list it under params"
        )


@pytest.mark.parametrize("stage", STAGES)
def test_how_the_machine_does_it_is_no_dependency(stage: str) -> None:
    assert "machine" not in yaml.safe_dump({**PIPELINE[stage], "deps": []})
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "checkpoint_folder":
            assert "machine" not in ast.unparse(call), "the key of a checkpoint names the machine"


def test_each_parameter_runs_something_again_or_is_known_not_to(reruns: dict[str, Reruns]) -> None:
    defaults = {
        f"variants.{name}.{key}"
        for name in PARAMS["variants"]
        for key in ("method", "passes_at", "credit", "thinks")
    }
    assert set(reruns) == _leaves_of(set(PARAMS)) | defaults
    idle = {name: item.reason for name, item in reruns.items() if not item.own}
    assert all(idle.values()), f"no stage reads {[name for name, reason in idle.items() if not reason]}"
    used = {start for start in WITHOUT_STAGES if any(f"{name}.".startswith(f"{start}.") for name in idle)}
    assert used == set(WITHOUT_STAGES)
    assert {name for name in idle if name.startswith("sources.")} == {"sources.base", "sources.judge"}
    named = [*PARAMS["compare"]["train"], *PARAMS["datasets"]]
    for name in idle:
        if name.startswith(("variants.", "ingest.readers.")):
            assert not any(f".{one}." in name for one in named), f"{name} is used and runs nothing again"
    assert {name for name in idle if name.startswith("machine.")} == _leaves("machine")


def test_what_dvc_itself_depends_on_is_in_the_table(reruns: dict[str, Reruns]) -> None:
    for stage in read_stages(ROOT):
        assert not any(name.startswith("machine") for name in stage.parameters)
        for key in stage.parameters:
            for leaf in _leaves(key):
                assert {stage.name, stage.group} & set(reruns[leaf].own), f"{stage.name}: {leaf}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("machine.processes", "nothing (how the machine does the work)"),
        ("machine.grpo.rows_per_pass", "nothing (how the machine does the work)"),
        ("machine.sft.save_steps", "nothing (how the machine does the work)"),
        ("machine.grpo.save_steps", "nothing (how the machine does the work)"),
        (
            "runtime.threads",
            "sft, distill, train_erv, grpo, evaluate, report; if these change, grounding, register",
        ),
        (
            "variants.erv.rewards.format",
            "grpo@erv; if these change, evaluate@erv, grounding, report, register",
        ),
        ("variants.rft.rewards.format", "nothing (compare.train does not name the variant)"),
        ("grpo.beta", "grpo; if these change, evaluate@erv, evaluate@r1_omni, grounding, report, register"),
        ("compare.train", "report; if these change, register; each entry has its own grpo"),
        ("compare.policies", "grounding, report, register; each entry has its own evaluate"),
        (
            "datasets",
            "evaluate, grounding, leakage, report; if these change, distill, sft, train_erv, grpo, register;"
            " each entry has its own ingest, validate, extract",
        ),
        (
            "roles.test",
            "evaluate, leakage, report; if these change, distill, sft, train_erv, grpo, grounding, register",
        ),
        (
            "leakage.action",
            "leakage; if these change, distill, sft, evaluate, train_erv, grpo, grounding, report, register",
        ),
        (
            "rollouts.policies",
            "distill; if these change, train_erv, evaluate, grpo, grounding, report, register; each"
            " entry has its own rollouts",
        ),
        ("rollouts.per_clip", "nothing (rollouts.policies names no policy)"),
        ("evaluate.temperature", "evaluate, register; if these change, grounding, report"),
        ("controls.kinds", "nothing (controls.policies names no policy)"),
        ("grounding.judge", "grounding; if these change, report, register"),
        ("report.confidence", "grounding, report; if these change, register"),
        ("ingest.readers.ravdess.channels", "nothing (datasets does not name the data set)"),
        ("sources.base", "nothing (only the content counts, once `erv data pin` has pinned it)"),
    ],
)
def test_what_a_parameter_runs_again(reruns: dict[str, Reruns], name: str, expected: str) -> None:
    said = str(reruns[name]).removeprefix(f"{name}: ")
    assert [sorted(part.split(", ")) for part in said.split("; ")] == [
        sorted(part.split(", ")) for part in expected.split("; ")
    ]


def test_the_command_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(command, ["reruns", "variants.erv"], catch_exceptions=False)
    lines = result.output.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "variants.erv.method",
        "variants.erv.passes_at",
        "variants.erv.credit",
        "variants.erv.thinks",
        "variants.erv.rewards.format",
        "variants.erv.rewards.accuracy",
        "variants.erv.rewards.explanation",
    ]
    assert (
        lines[4]
        == "variants.erv.rewards.format: grpo@erv; if these change, evaluate@erv, grounding, report, register"
    )


def test_the_command_refuses_parameters_that_dvc_does_not_read(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    shutil.copy(ROOT / "params.yaml", other)
    result = CliRunner().invoke(command, ["--file", str(other), "reruns", "seed"])
    assert result.exit_code == 2
    assert f"--file {other}: `reruns` asks DVC, which reads params.yaml; name that file" in result.output


def test_the_matrices_are_the_settings_own() -> None:
    assert PIPELINE["grpo"]["matrix"]["variant"] == "${compare.train}"
    assert PIPELINE["evaluate"]["matrix"]["policy"] == "${compare.policies}"
    assert PIPELINE["rollouts"]["matrix"]["policy"] == "${rollouts.policies}"
    assert "rft" not in PARAMS["compare"]["train"], "the demo does without"


def test_a_variant_is_switched_on_in_the_parameters_alone(tmp_path: Path) -> None:
    """What `dvc exp run -S 'compare.train=[r1_omni,erv,rft]' -S 'compare.policies=[...]'` writes."""
    arms = PARAMS["compare"]
    more = {"train": [*arms["train"], "rft"], "policies": [*arms["policies"], "rft"]}
    stages = stages_with(tmp_path, compare=more)
    assert "sft" in stages["grpo@rft"].upstream
    assert "grpo@rft" in stages["evaluate@rft"].upstream
    for last in ("report", "register"):
        assert {"evaluate@sft", "evaluate@erv", "evaluate@rft"} <= set(stages[last].upstream)
    shipped = {stage.name: stage for stage in read_stages(ROOT)}
    for name in ("grpo@erv", "evaluate@erv"):
        assert stages[name] == shipped[name], "the others stay as they are"


def test_an_arm_is_added_in_the_parameters_alone(tmp_path: Path) -> None:
    arms = [
        {"name": "sft_direct", "folder": "models/policy/sft", "thinks": False},
        {"name": "theirs", "folder": str(tmp_path / "theirs")},
    ]
    policies = [*PARAMS["compare"]["policies"], "sft_direct", "theirs"]
    stages = stages_with(tmp_path, arms=arms, compare={"policies": policies})
    assert stages["arms@arm0"].upstream == ("sft",)
    assert stages["arms@arm1"].upstream == ()
    assert "arms@arm0" in stages["evaluate@sft_direct"].upstream
    assert "arms@arm1" in stages["evaluate@theirs"].upstream
    shipped = {stage.name: stage for stage in read_stages(ROOT)}
    assert stages["evaluate@erv"] == shipped["evaluate@erv"], "the others stay as they are"


def test_rollouts_are_switched_on_in_the_parameters_alone(tmp_path: Path) -> None:
    local = {"teachers": [{"kind": "local", "model": "teacher"}]}
    stages = stages_with(tmp_path, rollouts={"policies": ["sft"]}, distill=local)
    assert stages["rollouts@sft"].upstream == ("extract@reasoning", "ingest@reasoning", "leakage", "sft")
    assert "rollouts@sft" in stages["distill"].upstream
    assert stages["distill"].command == {s.name: s for s in read_stages(ROOT)}["distill"].command


def test_roles_are_given_in_the_parameters_alone(tmp_path: Path) -> None:
    text = "\n".join(line for line in (ROOT / "dvc.yaml").read_text().splitlines() if "src/erv/" not in line)
    assert not re.search(r"\b(mafw|dfew|reasoning)\b", re.sub(r"--reasoning|data sets?", "", text))
    roles = {"cold_start": "mafw", "train": ["dfew"], "test": ["reasoning"]}
    stages = stages_with(tmp_path, roles=roles, sft={"max_steps": 0})
    assert "data/shards/mafw" in stages["sft"].dependencies
    for name in ("sft", "distill"):
        assert "data/manifest/mafw.parquet" in stages[name].dependencies
        assert not any("reasoning" in path for path in stages[name].dependencies)
        assert "--manifest data/manifest/mafw.parquet" in stages[name].command
    assert {"data/manifest", "data/shards"} <= set(stages["evaluate@erv"].dependencies)
    assert "data/training_sets.json" in stages["grpo@erv"].dependencies


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
                    imported = [] if called in local else _imported(tree, called)
                    assert called in local or imported, (
                        f"{path.name} passes all settings to {called}: it could read anything"
                    )
                    for function in imported:
                        visit(function)
    visit(tree)
    return found


def _imported(tree: ast.AST, name: str) -> list[ast.AST]:
    """The function of the library that a script imports by this name."""
    modules = [
        ROOT / "src" / f"{node.module.replace('.', '/')}.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}
    ]
    return [
        node
        for module in modules
        for node in ast.parse(module.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]


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
    if not isinstance(found, dict) or not found:
        return {key}
    return {leaf for part in found for leaf in _leaves(f"{key}.{part}")}


def _leaves_of(keys: set[str]) -> set[str]:
    return {leaf for key in keys for leaf in _leaves(key)}
