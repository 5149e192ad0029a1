"""Which code decides a stage's bytes: the rooms in its `deps`, which are what its script imports."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from erv.determinism import code_of, code_version
from erv.sample.sample import BASE_CODE, CODE
from tests.support.finished import finish
from tests.support.paths import ROOT
from tests.support.rooms import closure, room_of, rooms_of, settings_of

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
LABELS = "data/label_spaces"
# Of own label spaces, each stage depends on those it reads; grpo does so through data/training_sets.json,
# and distill and train_erv read MAFW's alone.
READ_OWN = {
    "ingest": f"{LABELS}/${{item.dataset}}.yaml",
    **dict.fromkeys(("sft", "rollouts"), f"{LABELS}/${{roles.cold_start}}.yaml"),
    **dict.fromkeys(("leakage", "evaluate", "controls", "grounding", "report", "register"), LABELS),
}

ALL = tuple(PIPELINE)
MEDIA = ("validate", "extract")
POLICIES = ("sft", "rollouts", "grpo", "evaluate", "controls")
READ_EVALUATIONS = ("controls", "grounding", "report")
READ_SOURCES = ("ingest", *MEDIA, "sft", "distill", "train_erv", "evaluate", "controls", "report")
READ_LABELS = (
    "ingest",
    "leakage",
    "sft",
    "rollouts",
    "distill",
    "train_erv",
    "grpo",
    "evaluate",
    *READ_EVALUATIONS,
    "register",
)

# A change in the file on the left must run the stages on the right again, and no other by itself.
DECIDES = {
    "src/erv/manifest.py": tuple(stage for stage in ALL if stage != "arms"),
    "src/erv/files.py": ALL,
    "src/erv/labels/label_space.py": READ_LABELS,
    "src/erv/labels/spaces/mafw.yaml": READ_LABELS,
    "data/label_spaces/README.md": (),
    "data/label_spaces/own.yaml": ("leakage", "evaluate", *READ_EVALUATIONS, "register"),
    "data/label_spaces/mafw.yaml": ("ingest", "leakage", "evaluate", *READ_EVALUATIONS, "register"),
    "data/label_spaces/reasoning.yaml": tuple(READ_OWN),
    "data/prompts/r1_omni.txt": ("sft",),
    "data/prompts/labels.txt": (),
    "src/erv/training_sets.py": ("leakage", "grpo"),
    "src/erv/ingest/ingest.py": ("ingest",),
    "src/erv/ingest/published.yaml": ("ingest",),
    "src/erv/ingest/readers/mafw_sheets.py": ("ingest",),
    "src/erv/sources/lock.py": READ_SOURCES,
    "src/erv/sources/frame_folders.py": READ_SOURCES,
    "src/erv/sources/selection.py": READ_SOURCES,
    "src/erv/plots/tables.py": ("ingest", *MEDIA, "report"),
    "src/erv/figures/drawing.py": ("report",),
    "src/erv/validate/expectations.py": ("validate",),
    "src/erv/validate/video_probe.py": ("validate",),
    "src/erv/media/frames.py": MEDIA,
    "src/erv/media/seeking.py": MEDIA,
    "src/erv/media/worker_process.py": MEDIA,
    "src/erv/extract/chunks.py": ("extract",),
    "src/erv/model_folders.py": (*POLICIES, "arms", "distill", "train_erv", "report"),
    "src/erv/leakage/similar.py": ("leakage",),
    "src/erv/exclusions.py": ("leakage", "sft", "rollouts", "distill", "grpo"),
    "src/erv/shards.py": ("extract", "leakage", *POLICIES, "grounding", "report"),
    "src/erv/prompts.py": (
        *("ingest", *POLICIES, "arms", "distill", "train_erv", "grounding", "report", "register"),
    ),
    "src/erv/sentences.py": (
        "ingest",
        "distill",
        "train_erv",
        "grpo",
        "evaluate",
        *READ_EVALUATIONS,
        "register",
    ),
    "src/erv/determinism.py": ALL,
    "src/erv/checkpoints.py": ("sft", "train_erv", "grpo", "evaluate"),
    "src/erv/policies/humanomni/modeling.py": (*POLICIES, "arms"),
    "src/erv/arms/arms.py": ("arms",),
    "src/erv/claims.py": ("ingest", "grpo", "grounding", "report"),
    "src/erv/cues.py": ("ingest", "grpo", "grounding", "report"),
    "src/erv/training/common/collate.py": ("sft", "grpo"),
    "src/erv/training/sft/sft.py": ("sft",),
    "src/erv/rollouts/rollouts.py": ("rollouts",),
    "data/rollouts/README.md": (),
    "src/erv/distill/corpus.py": ("distill",),
    "src/erv/distill/teachers/asking.py": ("distill",),
    "src/erv/chat/endpoint.py": ("distill", "evaluate", "controls", "grounding", "report"),
    "data/judge_texts/policies.csv": ("evaluate",),
    "data/judge_texts/choosing.csv": (),
    "src/erv/verifier/calibration.py": ("train_erv", "grpo", "report"),
    "src/erv/train_erv/encoder.py": ("train_erv",),
    "src/erv/rewards/explanation.py": ("grpo",),
    "src/erv/training/grpo/trainer.py": ("grpo",),
    "src/erv/completions/pieces.py": ("evaluate", "controls"),
    "src/erv/evaluate/judges/panel.py": ("evaluate", *READ_EVALUATIONS, "register"),
    "src/erv/controls/showing.py": ("controls",),
    "src/erv/grounding/claims.py": ("grounding", "report"),
    "src/erv/report/templates/report.html.j2": ("report",),
    "src/erv/sample/wordings.py": (),
    "src/erv/register/register.py": ("register",),
    # values that params.yaml may leave out
    "src/erv/settings/chat.py": ("distill", "evaluate", *READ_EVALUATIONS, "register"),
    "src/erv/settings/judges.py": ("evaluate", "controls", "report", "register"),
    "src/erv/settings/variants.py": ("grpo",),
    "src/erv/settings/arms.py": ("arms",),
    "src/erv/settings/faults.py": (),
    **{f"stages/{stage}.py": (stage,) for stage in ALL},
    # And what can't change a stage's bytes runs nothing.
    "src/erv/stack/control.py": (),
    "src/erv/stage.py": (),
    "src/erv/errors.py": (),
    "src/erv/progress.py": (),
    "src/erv/collector.py": (),
    "src/erv/event_loop.py": (),
    "src/erv/environment/environment.py": (),
    "src/erv/storage/store.py": (),
    "src/erv/pinning/journal.py": (),
    "src/erv/tracking/delivery.py": (),
    "src/erv/lineage/trace.py": (),
    "src/erv/doctor/fit.py": (),
    "src/erv/pipeline/guard.py": (),
    "src/erv/commands/run.py": (),
    "src/erv/policies/qwen_omni/modeling.py": (),
    "flows/train.py": (),
    "requirements/tools-3.11.lock": (),
    "requirements/results-3.11.lock": ALL,
    "requirements/results-3.12.lock": (),
    "requirements/results-3.13.lock": (),
    "requirements/lowest.txt": (),
    "requirements/transformers.txt": ("grpo",),
    "requirements/vllm.txt": (),
    "requirements/lora-none.txt": ("sft", "grpo"),
    "requirements/lora-nf4.txt": (),
}


def code(stage: str) -> set[str]:
    return {path for path in PIPELINE[stage]["deps"] if path.startswith(("src/erv", LABELS))}


def test_the_stamp_of_the_sample_corpus_has_the_rooms_it_is_made_with() -> None:
    def elsewhere(module: str) -> bool:
        return module.split(".")[1] in ("settings", "errors") or module.startswith("erv.policies.qwen_omni")

    rooms = {room_of(module) for module in closure("erv.sample.sample", elsewhere)}
    around = {"environment", "pipeline", "progress.py", "sources", "storage"}  # of media
    assert set(BASE_CODE) >= rooms - around
    drawn = ("clips", "contrasts", "emotions", "face", "layouts", "people", "voice", "wordings")
    made = {m for name in drawn for m in closure(f"erv.sample.{name}", elsewhere)}
    assert {room_of(module) for module in made} <= set(CODE)


def test_every_stage_has_a_room_of_its_own_in_the_table() -> None:
    alone = {stages[0] for path, stages in DECIDES.items() if len(stages) == 1 and path.startswith("src/erv")}
    shared = {
        "grounding": "report reads the cues",
        "evaluate": "controls draws as it does, and report reads what it says",
    }
    assert alone == set(ALL) - set(shared)


def test_packages_above_a_room_do_nothing_when_they_are_imported() -> None:
    """Python runs them for each of their modules; they are in no stage's `deps`."""
    for path in ("src/erv/__init__.py", "src/erv/training/__init__.py"):
        nodes = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        assert all(isinstance(node, ast.Expr | ast.Assign) for node in nodes), path
        assert not any(isinstance(child, ast.Call) for node in nodes for child in ast.walk(node)), path


@pytest.mark.parametrize("stage", ALL)
def test_its_rooms_are_what_it_imports(stage: str) -> None:
    rooms = rooms_of(stage)
    wanted = {f"src/erv/{room}" for room in rooms}
    if stage in READ_OWN:
        assert "labels" in rooms
        wanted.add(READ_OWN[stage])
    wanted |= settings_of(PIPELINE[stage].get("params", []))
    found = code(stage)
    assert found == wanted, f"dvc.yaml, {stage}: add {wanted - found}, remove {found - wanted}"


def test_the_key_of_checkpoints_has_the_rooms_of_dvc_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for stage in ALL:
        wanted = {path.replace("${policy.family}", "humanomni") for path in code(stage)}
        wanted = {path.replace("${roles.cold_start}", "reasoning") for path in wanted}
        wanted = {path.partition("/${item.")[0] for path in wanted}
        wanted.add(f"stages/{stage}.py")
        assert set(code_of(stage)) == wanted
        assert set(json.loads(code_version(code_of(stage), ()))) == wanted
    assert code_of("grpo@erv") == code_of("grpo")
    monkeypatch.chdir("/")
    assert code_of("grpo") == ("src/erv",), "without dvc.yaml, all of the code decides"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which every stage counts as done; its outputs are empty."""
    return finish(
        tmp_path_factory.mktemp("planted"),
        every="\n  policies: [] -> \n  policies: [sft]",  # also the stages that the demo does without
        arms="\narms: [] -> \narms: [{name: other, folder: models/policy/sft}]",
    )


@pytest.fixture(scope="module")
def stages(workspace: Path) -> Iterator[list[Any]]:
    from dvc.repo import Repo

    with contextlib.chdir(workspace), Repo(".") as repo:
        yield list(repo.index.stages)


def changed(stages: list[Any]) -> set[str]:
    """The stages that DVC would run again, not counting those that wait for another's outputs."""
    dependencies = {item.fs_path: item for stage in stages for item in stage.deps if item.fs_path}
    dirty = {path for path, item in dependencies.items() if item.changed_checksum()}
    return {s.name.partition("@")[0] for s in stages if dirty & {item.fs_path for item in s.deps}}


def test_nothing_is_to_do_without_a_change(stages: list[Any]) -> None:
    assert changed(stages) == set()


@pytest.mark.parametrize("path", DECIDES)
def test_a_planted_change_runs_what_it_decides(workspace: Path, stages: list[Any], path: str) -> None:
    file = workspace / path
    before = file.read_bytes() if file.exists() else None
    file.write_bytes((before or b"") + b"\n# planted\n")
    try:
        assert changed(stages) == set(DECIDES[path])
    finally:
        file.unlink() if before is None else file.write_bytes(before)


def test_the_architecture_page_has_the_layers_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [item for item in contracts if item.get("containers") == ["erv"]]
    wanted = [layer.split(" | ") for layer in contract["layers"]]
    found: list[list[str]] = []
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        if match := re.match(r"\| (\d*) ?\| (`.*?`) \|", line):
            if match[1]:
                found.append([])
            found[-1] += re.findall(r"`(\w+)`", match[2])
    assert found == wanted
