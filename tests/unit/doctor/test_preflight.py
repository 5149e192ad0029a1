"""What would be found out after hours is found out before."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from erv.cli import command
from erv.doctor import base_policy, gpus
from erv.doctor.gpus import Accelerator, Gpu
from erv.doctor.policy_sizes import PolicySizes, nominal
from erv.doctor.preflight import check, gpu_faults
from erv.environment import load_environment
from erv.errors import SettingsError
from erv.pinning import pin
from erv.pipeline import PipelineError, PipelineStage
from erv.prompts import INSTRUCTION
from erv.sample.tiny_policy import build_tiny_policy
from erv.settings import parse_settings
from tests.support.sizes import SMALLEST

STAGES = [
    PipelineStage(name, (), "true", (), ())
    for name in (
        *("grpo@r1_omni", "grpo@erv", "evaluate@sft", "evaluate@r1_omni", "evaluate@erv"),
        *("report", "register"),
    )
]


@pytest.fixture
def raw(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


def checked(raw: dict[str, Any], folder: Path, stages: list[PipelineStage]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    check(load_environment(folder), stages)


def test_shipped_parameters_fit_the_stages(raw: dict[str, Any], tmp_path: Path) -> None:
    checked(raw, tmp_path, STAGES)


def test_a_policy_without_a_stage(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["compare"]["train"] += ["rft"]
    with pytest.raises(PipelineError, match=r"compare\.train names rft, which would not be in the report"):
        checked(raw, tmp_path, STAGES)
    raw["compare"]["policies"] += ["rft"]
    with pytest.raises(PipelineError, match=r"names rft: dvc\.yaml has no grpo@rft, evaluate@rft"):
        checked(raw, tmp_path, STAGES)
    checked(raw, tmp_path, STAGES[:2])
    stages = [PipelineStage(name, (), "true", (), ()) for name in ("grpo@rft", "evaluate@rft")]
    checked(raw, tmp_path, [*stages, *STAGES])


def test_a_typo_in_a_label_space(raw: dict[str, Any], tmp_path: Path) -> None:
    """The stages would count `surprize` as an emotion that MAFW doesn't have."""
    raw["datasets"] += ["own"]
    raw["sources"]["own"] = "data/raw/own"
    raw["ingest"]["readers"]["own"] = {"reader": "table", "table": "clips.csv", "split": "test"}
    folder = tmp_path / "data/label_spaces"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(
        "name: own\nlabels: [{id: 1, name: awe}]\nmaps: {mafw: {awe: surprize}}\n"
    )
    said = r"own\.yaml: map to mafw: awe ends in 'surprize', no name of mafw; did you mean surprise\?"
    with pytest.raises(PipelineError, match=said):
        checked(raw, tmp_path, STAGES)
    told = CliRunner().invoke(command, ["params", "--file", str(tmp_path / "params.yaml")])
    assert isinstance(told.exception, SettingsError)
    assert re.search(said, str(told.exception))


def test_an_arm_needs_its_folder_and_no_training(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["arms"] = [{"name": "theirs", "folder": str(tmp_path / "theirs")}]
    raw["compare"]["policies"] += ["theirs"]
    arm = PipelineStage("arms@arm0", (), "true", (str(tmp_path / "theirs"),), ("models/policy/theirs",))
    stages = [arm, PipelineStage("evaluate@theirs", ("arms@arm0",), "true", ("models/policy/theirs",), ())]
    with pytest.raises(
        PipelineError, match=r"theirs: not found; the arm theirs names it: give the folder of"
    ):
        checked(raw, tmp_path, [*STAGES, *stages])
    (tmp_path / "theirs").mkdir()
    checked(raw, tmp_path, [*STAGES, *stages])


def test_figures_on_validation_clips_are_not_registered(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["evaluate"]["split"] = "validation"
    with pytest.raises(PipelineError, match=r"evaluate\.split is validation, but register"):
        checked(raw, tmp_path, STAGES)
    checked(raw, tmp_path, STAGES[:-1])


DISTILL = [PipelineStage("distill", (), "true", (), ())]


def pinned(folder: Path, source: str, *paths: str) -> None:
    tree = folder / f"{source} tree"
    for path in paths:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text("content")
    (folder / "data" / "sources").mkdir(parents=True, exist_ok=True)
    pin(source, str(tree), None).save(folder / "data" / "sources" / f"{source}.lock.json")


def test_without_explanations_something_else_teaches_the_verifier(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    pinned(tmp_path, "mafw", "labels/list.txt")
    pinned(tmp_path, "base", "policy/config.json", "teacher/config.json")
    raw["roles"]["cold_start"] = "mafw"
    raw["sft"]["max_steps"] = 0
    with pytest.raises(
        PipelineError,
        match=r"^roles\.cold_start is 'mafw', which has no explanations, .*; set rollouts\.policies: \[sft\]"
        r" with an openai or local teacher, or add sentences\.csv to the mafw source and pin again$",
    ):
        checked(raw, tmp_path, DISTILL)
    pinned(tmp_path, "mafw", "labels/list.txt", "sentences.csv")
    checked(raw, tmp_path, DISTILL)
    pinned(tmp_path, "dfew", "list.txt")
    raw["roles"]["cold_start"] = "dfew"
    raw["rollouts"]["policies"] = ["sft"]
    raw["distill"]["teachers"] = [{"kind": "local", "model": "teacher"}]
    checked(raw, tmp_path, DISTILL)


def test_teachers_that_can_not_label(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(tmp_path, "reasoning", "EMER.csv")
    pinned(tmp_path, "base", "encoder/config.json", "teacher/config.json")
    endpoint = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "MY_KEY"}
    raw["distill"]["teachers"] = [{"kind": "reference"}, endpoint, {"kind": "local", "model": "other"}]
    with pytest.raises(PipelineError) as caught:
        checked(raw, tmp_path, DISTILL)
    assert str(caught.value).splitlines()[1:] == [
        "  - distill.teachers[0] (reference): the reasoning source has no sentence_labels.csv; add it and pin"
        " again, or let an openai or local teacher label the sentences",
        "  - distill.teachers[1] (openai:m): the environment variable MY_KEY is not set; put the key in it",
        "  - distill.teachers[2] (local:other): the base source has no folder other; add it and pin again",
    ]
    checked(raw, tmp_path, STAGES[:2])  # without distill nobody asks
    pinned(tmp_path, "reasoning", "EMER.csv", "sentence_labels.csv")
    raw["distill"]["teachers"][2]["model"] = "teacher"
    monkeypatch.setenv("MY_KEY", "k")
    checked(raw, tmp_path, DISTILL)
    monkeypatch.delenv("MY_KEY")
    summary = tmp_path / "data" / "sentences.json"
    summary.write_text('{"teachers": {"reference": {}, "openai:m": {}}}')
    checked(raw, tmp_path, DISTILL)  # labelled before
    summary.write_text('{"teachers": {"reference": {}}}')
    with pytest.raises(PipelineError, match="MY_KEY is not set"):
        checked(raw, tmp_path, DISTILL)


def test_a_judge_of_captions_without_its_key_is_known_before_anything_starts(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [PipelineStage("grounding", (), "true", (), ())]
    judge = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "MY_KEY"}
    raw["grounding"]["judge"] = judge
    with pytest.raises(PipelineError, match=r"grounding\.judge \(openai:m\): .*MY_KEY is not set"):
        checked(raw, tmp_path, stages)
    checked(raw, tmp_path, STAGES[:2])
    monkeypatch.setenv("MY_KEY", "k")
    checked(raw, tmp_path, stages)
    monkeypatch.delenv("MY_KEY")
    raw["grounding"]["judge"] = judge | {"api_key_env": None}
    checked(raw, tmp_path, stages)


def test_a_judge_that_is_too_poor_is_known_before_anything_starts(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    """It was right on 33% of 6 texts, and its figures went through to a candidate."""
    said = [f"Someone here is {label} number {n}.,{label}" for n in range(9) for label in ("anger", "fear")]
    pinned(tmp_path, "base", "teacher/config.json")
    pinned(tmp_path, "judge", "texts.csv")
    (tmp_path / "judge tree/texts.csv").write_text("\n".join(["text,label", *said]))
    pin("judge", str(tmp_path / "judge tree"), None).save(tmp_path / "data/sources/judge.lock.json")
    raw["evaluate"]["judges"] = [{"kind": "lexical"}]
    labelled = tmp_path / "data/judge_texts/policies.csv"
    with pytest.raises(PipelineError, match=r"policies\.csv: not found; restore it from git"):
        checked(raw, tmp_path, STAGES)
    labelled.parent.mkdir()
    labelled.write_text("text,label\nSomeone is angry.,anger\nSomeone is in fear.,anger\n")
    with pytest.raises(PipelineError, match=r"the judge lexical is right on .*evaluate\.minimum_judge_texts"):
        checked(raw, tmp_path, STAGES)
    checked(raw, tmp_path, STAGES[:2])  # nothing is evaluated
    raw["evaluate"] |= {"minimum_judge_accuracy": 0.0, "minimum_judge_texts": 0}
    with pytest.raises(PipelineError, match=r"measured on 0 of the 11 emotions of .*minimum_judge_emotions"):
        checked(raw, tmp_path, STAGES)
    raw["evaluate"]["minimum_judge_emotions"] = 0.0
    checked(raw, tmp_path, STAGES)


def test_a_judge_that_lacks_something_is_known_before_anything_starts(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "MY_KEY"}
    local = {"kind": "local", "model": "chat"}
    raw["evaluate"]["judges"] = [{"kind": "embedding"}, {"kind": "lexical"}, endpoint, local]
    pinned(tmp_path, "base", "encoder/config.json")
    pinned(tmp_path, "judge", "SAMPLE.txt")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(PipelineError) as caught:
        checked(raw, tmp_path, STAGES)
    assert str(caught.value).splitlines()[1:] == [
        "  - evaluate.judges[0] (embedding): the base source has no folder sentence_encoder; write it with"
        " `erv data encoder` and pin again",
        "  - evaluate.judges[1] (lexical): the judge source has no texts.csv; add it and pin again",
        "  - evaluate.judges[2] (openai:m): the environment variable MY_KEY is not set; put the key in it",
        "  - evaluate.judges[3] (local:chat): the base source has no folder chat; add it and pin again",
    ]


def test_a_policy_that_does_not_fit_is_known_before_anything_starts(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    tree = tmp_path / "base tree"
    model, _ = build_tiny_policy([INSTRUCTION], 0, SMALLEST)
    model.config.save_pretrained(tree / "policy")
    (tmp_path / "data" / "sources").mkdir(parents=True)
    pin("base", str(tree), None).save(tmp_path / "data" / "sources" / "base.lock.json")
    raw["extract"].update(frames=2, size=32)
    checked(raw, tmp_path, STAGES)
    raw["grpo"]["max_completion_length"] = 1000
    raw["extract"]["size"] = 64
    with pytest.raises(PipelineError) as caught:
        checked(raw, tmp_path, STAGES)
    frames, length = str(caught.value).splitlines()[1:]
    assert "extract makes 2 frames of 64 pixels, but the policy of" in frames
    assert "grpo.max_completion_length is 1000: 2 tokens of frames + 8 of sound" in length
    assert " of 1024; lower it to " in length
    checked(raw, tmp_path, STAGES[2:4])  # nothing trains
    (tree / "policy" / "config.json").write_text("{}")
    with pytest.raises(PipelineError, match=r"policy/config\.json"):
        checked(raw, tmp_path, STAGES)


def test_a_base_of_another_family_is_refused(raw: dict[str, Any], tmp_path: Path) -> None:
    """Each stage that loads a policy needs the cold start, so `sft` is always among the stages."""
    (tmp_path / "base tree" / "policy").mkdir(parents=True)
    config = tmp_path / "base tree" / "policy" / "config.json"
    (tmp_path / "data" / "sources").mkdir(parents=True)
    stages = [PipelineStage("sft", (), "true", (), ())]
    for kind, message in (
        (
            "qwen2_5_omni",
            r"/policy: a checkpoint of the family qwen_omni .* policy\.family is humanomni;",
        ),
        ("qwen2", r"model_type 'qwen2' is not a policy that sees and hears"),
    ):
        config.write_text(json.dumps({"model_type": kind}))
        pin("base", str(config.parents[1]), None).save(tmp_path / "data" / "sources" / "base.lock.json")
        with pytest.raises(PipelineError, match=message):
            checked(raw, tmp_path, stages)
        checked(raw, tmp_path, [])
    raw["policy"]["family"] = "qwen_omni"
    config.write_text(json.dumps({"model_type": "qwen2_5_omni"}))
    pin("base", str(config.parents[1]), None).save(tmp_path / "data" / "sources" / "base.lock.json")
    checked(raw, tmp_path, stages)


def test_gpus_that_are_too_few_or_too_small(raw: dict[str, Any]) -> None:
    raw["machine"].update(processes=2, accelerate="ddp")
    settings, sizes = parse_settings(raw), nominal("HumanOmni-0.5B")
    assert gpu_faults(settings, sizes, []) == ([], [])
    assert gpu_faults(settings, sizes, [Gpu("big", 10**15)] * 2) == ([], [])
    assert gpu_faults(settings, None, [Gpu("big", 10**15)]) == (
        ["machine.processes is 2, but this machine has 1 GPU(s); lower it"],
        [],
    )
    certain, likely = gpu_faults(settings, sizes, [Gpu("big", 10**15), Gpu("small", 24_000_000_000)])
    assert certain == []
    assert [sentence.split()[0] for sentence in likely] == ["sft", "grpo"]
    certain, likely = gpu_faults(settings, sizes, [Gpu("small", 8_000_000_000)] * 2)
    assert [sentence.split()[0] for sentence in certain] == ["sft", "grpo"]
    assert likely == []


@pytest.mark.parametrize(
    ("section", "changes", "named"),
    [
        ("runtime", {"device": "cuda"}, "runtime.device: cuda"),
        ("runtime", {"dtype": "bfloat16"}, "runtime.dtype: bfloat16"),
        ("machine", {"accelerate": "zero2"}, "machine.accelerate: zero2"),
        (
            "grpo",
            {"lora": {"enabled": True, "rank": 4, "alpha": 8, "dropout": 0.0, "quantize": "nf4"}},
            "grpo.lora.quantize: nf4",
        ),
    ],
)
def test_what_needs_a_gpu_is_said_where_there_is_none(
    raw: dict[str, Any], section: str, changes: dict[str, Any], named: str
) -> None:
    raw[section].update(changes)
    assert gpu_faults(parse_settings(raw), None, []) == ([f"{named}: needs a GPU, and this run has none"], [])


def test_gpus_that_one_process_would_split_batches_over(raw: dict[str, Any]) -> None:
    certain, _ = gpu_faults(parse_settings(raw), None, [Gpu("big", 10**15)] * 4)
    assert "this machine has 4 GPUs and machine.accelerate is null" in certain[0]


def test_gpus_without_a_driver_cost_no_import_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Accelerator("2.13.0", cuda_build=True, gpus=(Gpu("one", 1),), bfloat16=True)
    monkeypatch.setattr(gpus, "see_accelerator", lambda: found)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.installed_gpus() == ()
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    assert gpus.installed_gpus() == found.gpus


def test_sizes_of_the_base_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment, asked = load_environment(tmp_path), []
    assert base_policy.base_sizes(environment) is None

    def count(config: dict[str, Any], name: str) -> PolicySizes:
        asked.append(config["num_frames"])
        return replace(sizes, name=name, frames=config["num_frames"])

    def counted(frames: int) -> PolicySizes | None:
        tree = tmp_path / "base tree"
        (tree / "policy").mkdir(parents=True, exist_ok=True)
        (tree / "policy" / "config.json").write_text(json.dumps({"num_frames": frames}))
        (tmp_path / "data" / "sources").mkdir(parents=True, exist_ok=True)
        pin("base", str(tree), None).save(tmp_path / "data" / "sources" / "base.lock.json")
        return base_policy.base_sizes(environment)

    sizes = nominal("HumanOmni-0.5B")
    monkeypatch.setattr(base_policy, "sizes_of", count)
    first = counted(2)
    assert first is not None
    assert (first.frames, asked) == (2, [2])
    assert (counted(2), asked) == (first, [2])
    counted(4)
    assert asked == [2, 4], "another configuration"
    for path in (tmp_path / ".erv" / "sizes").iterdir():
        path.write_text('{"name": ')
    assert counted(2) == first
    assert asked == [2, 4, 2], "a damaged file"
    monkeypatch.setattr(base_policy, "sha256_of", lambda path: "other code")
    assert (counted(2), asked) == (first, [2, 4, 2, 2])
