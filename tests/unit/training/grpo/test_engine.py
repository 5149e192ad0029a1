"""Completions from another process: embeddings, weights, the correction of the loss, refusals.

The process runs transformers' own text class where vLLM will be; `make gpu-proof` runs vLLM.
"""

import json
import math
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

import stages.grpo
from erv.checkpoints import checkpoint_folder
from erv.doctor import fit, lacks, preflight
from erv.environment import Environment
from erv.errors import SettingsError, TrainingError
from erv.pipeline import PipelineStage
from erv.policies import Policy, load_policy
from erv.sample.tiny_policy import build_tiny_policy
from erv.settings import load_settings, parse_settings
from erv.settings.across import EMBEDS
from erv.shards import ShardReader
from erv.training.common.adapters import lora_config
from erv.training.grpo import grpo
from erv.training.grpo.engine import client
from erv.training.grpo.engine import start as starting
from erv.training.grpo.engine.agreement import agreement
from erv.training.grpo.engine.client import EngineClient, Sampling
from erv.training.grpo.engine.lacks import INSTALL, vllm_fault, vllm_version
from erv.training.grpo.engine.prompts import check_embeds, embedded_prompts
from erv.training.grpo.engine.text_model import text_weights, write_text_folder
from erv.training.grpo.engine.worker import load_all, serve
from erv.training.grpo.shared_prompts import SharedPrompt
from tests.support.runtime import MACHINE, RUNTIME, machine
from tests.support.tiny_grpo import LORA, SIZES, many_letters, settings, training_rows
from tests.support.tiny_qwen_omni import tiny_qwen_omni
from tests.unit.training.grpo.test_checkpointed_prompts import KEYS, folder, trainer_of  # noqa: F401
from tests.unit.training.grpo.test_static_decode import GROUPS, TEXTS, prompts

COMMAND = [sys.executable, str(Path(__file__).parents[3] / "support" / "text_engine.py")]
HANGS = ["sh", "-c", "exec sleep 300"]
FAMILIES = {"humanomni": lambda: Policy(*build_tiny_policy(TEXTS, seed=3, sizes=SIZES))}


def start(policy: Policy, **options: Any) -> EngineClient:
    return EngineClient(
        COMMAND,
        lambda place: write_text_folder(policy.model, policy.processor.tokenizer, place),
        {"dtype": "float32", **options},
    )


def adapted(policy: Policy) -> Any:
    """The policy with adapters that change it."""
    from peft import get_peft_model

    model = get_peft_model(policy.model, lora_config(policy.model, LORA))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(1))
    return model.eval()


def test_every_family_that_settings_allow_is_tested_here() -> None:
    assert set(FAMILIES) == set(EMBEDS)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_model_on_embeddings_is_the_policy(family: str, lora: bool, tmp_path: Path) -> None:
    policy = FAMILIES[family]()
    plain = dict(text_weights(policy.model, torch.float32))
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    model = adapted(policy) if lora else policy.model
    write_text_folder(policy.model, policy.processor.tokenizer, tmp_path)
    text = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path), dtype=torch.float32).eval()
    weights = dict(text_weights(policy.model, torch.float32))
    assert set(weights) == {name for name, _ in text.named_parameters()}
    assert any(not torch.equal(value, plain[name]) for name, value in weights.items()) == lora
    text.load_state_dict(weights, strict=False)

    inputs = prompts(policy)
    completion = torch.randint(300, 350, (2, 6), generator=torch.Generator().manual_seed(0))
    embedded = embedded_prompts(policy.model.base_model, SharedPrompt(inputs, GROUPS))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert [len(row) for row in embedded] == mask.sum(1).tolist()
    assert len(embedded[0]) != len(embedded[1])
    media = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    del media["position_ids"]
    with torch.no_grad():
        whole = model(
            input_ids=torch.cat([ids, completion], 1),
            attention_mask=torch.cat([mask, torch.ones_like(completion)], 1),
            **media,
        ).logits[:, -7:]
        greedy = {"max_new_tokens": 7, "min_new_tokens": 7, "do_sample": False, "pad_token_id": 0}
        config = GenerationConfig(**greedy, eos_token_id=policy.processor.tokenizer.eos_token_id)
        written = model.generate(input_ids=ids, attention_mask=mask, **media, generation_config=config)
        for number, prompt in enumerate(embedded):
            both = torch.cat([prompt, text.get_input_embeddings()(completion[number])])
            logits = text(inputs_embeds=both[None]).logits[0, -7:]
            torch.testing.assert_close(
                logits.log_softmax(-1), whole[number].log_softmax(-1), atol=2e-5, rtol=0
            )
            own = text.generate(inputs_embeds=prompt[None], generation_config=config)
            assert own[0].tolist() == written[number, ids.shape[1] :].tolist()
    if lora:  # the trained policy is as it was
        unwrapped = model.unload()
        assert all(torch.equal(value, before[name]) for name, value in unwrapped.state_dict().items())


@pytest.fixture
def policy() -> Policy:
    return FAMILIES["humanomni"]()


def test_a_process_writes_by_seed_gets_changed_weights_and_says_why_it_fails(policy: Policy) -> None:
    exported: list[int] = []

    def weights() -> Iterator[tuple[str, torch.Tensor]]:
        exported.append(1)
        return text_weights(policy.model, torch.float32)

    embedded = embedded_prompts(policy.model.base_model, SharedPrompt(prompts(policy), GROUPS))
    ends = (policy.processor.tokenizer.eos_token_id,)
    sampling = Sampling(1.0, 5, ends, tuple(policy.model.placeholder_ids))
    rows = [(0, 7), (1, 8), (0, 7), (0, 9)]
    with start(policy) as engine:
        first = engine.write(weights, 0, embedded, rows, sampling)
        again = engine.write(weights, 0, embedded, rows, sampling)
        assert exported == [1]
        policy.model.lm_head.weight.data.mul_(3.0)  # tied to the embeddings
        changed = engine.write(weights, 1, embedded, rows, sampling)
        assert exported == [1, 1]
        with pytest.raises(TrainingError, match="vLLM failed: RuntimeError: "):
            engine.write(weights, 1, [torch.zeros(3, 5)], rows[:1], sampling)  # of the wrong width
        assert engine.write(weights, 1, embedded, rows, sampling) == changed
        engine._process.kill()
        with pytest.raises(TrainingError, match="its process ended with exit code -9: "):
            engine.write(weights, 1, embedded, rows, sampling)
    assert first == again
    assert first.tokens[0] == first.tokens[2] != first.tokens[3]
    assert [len(row) for row in first.tokens] == [len(row) for row in first.log_probs]
    assert first.log_probs != changed.log_probs


def test_a_process_that_never_gets_ready_says_why(policy: Policy) -> None:
    command = [sys.executable, "-c", "import sys; print(); sys.exit('no memory left')"]
    folders: list[Path] = []
    with (
        pytest.raises(TrainingError, match=r"exit code 1: no memory left; lower machine\.grpo\.vllm_memory"),
        EngineClient(command, folders.append, {}) as engine,
    ):
        engine.write(lambda: [], 0, [], [], Sampling(1.0, 5, (2,), ()))
    assert not folders[0].parent.exists()


def test_a_process_that_ends_before_it_is_asked_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = client.subprocess.Popen

    def ended(*arguments: Any, **options: Any) -> Any:
        process = popen(*arguments, **options)
        process.wait()
        return process

    monkeypatch.setattr(client.subprocess, "Popen", ended)
    folders: list[Path] = []
    with pytest.raises(TrainingError, match="exit code 3: it said nothing") as caught:
        EngineClient(["sh", "-c", "exit 3"], folders.append, {})
    assert not folders[0].parent.exists()
    del caught  # its traceback keeps the client alive: the folder is removed by `close`, not with the object


def test_an_interpreter_that_can_t_be_started_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folders: list[Path] = []
    for name, why in (("none", "No such file or directory"), ("file", "Permission denied")):
        with pytest.raises(
            TrainingError, match=rf"{name} \(machine\.grpo\.vllm_python\) can't be started: {why};"
        ):
            EngineClient([str(tmp_path / name)], folders.append, {})
    assert not any(place.parent.exists() for place in folders)


def test_a_hung_process_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "START_LIMIT", 0.3)
    begun = time.monotonic()
    with (
        pytest.raises(TrainingError, match=r"no answer for 0\.005 minutes and was killed; its last line: "),
        EngineClient(HANGS, lambda place: None, {}) as engine,
    ):
        engine.ready()
    assert engine._process.returncode == -signal.SIGKILL
    assert time.monotonic() - begun < 10


def test_a_generation_has_a_limit_too(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WRITE_LIMIT", 0.3)
    script = "import sys; from multiprocessing.connection import Connection as C; c = C(int(sys.argv[1]));"
    script += 'c.recv_bytes(); c.send_bytes(b\'{"version": ""}\'); import time; time.sleep(300)'
    with (
        pytest.raises(TrainingError, match=r"no answer for 0\.005 minutes"),
        EngineClient([sys.executable, "-c", script], lambda place: None, {}) as engine,
    ):
        engine.write(lambda: [], 0, [], [], Sampling(1.0, 5, (2,), ()))
    assert engine._process.returncode == -signal.SIGKILL


def test_a_process_that_closes_its_connection_but_goes_on_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "END_LIMIT", 0.3)
    command = ["bash", "-c", 'sleep 1; eval "exec $0>&-"; exec sleep 300']
    with (
        pytest.raises(TrainingError, match="exit code -9"),
        EngineClient(command, lambda place: None, {}) as engine,
    ):
        engine.ready()


def test_after_an_exception_nothing_is_waited_for() -> None:
    begun = time.monotonic()
    with pytest.raises(KeyError), EngineClient(HANGS, lambda place: None, {}) as engine:
        raise KeyError
    assert engine._process.returncode == -signal.SIGKILL
    assert time.monotonic() - begun < 10


def test_an_answer_that_is_no_json_is_one_sentence() -> None:
    script = "import sys; from multiprocessing.connection import Connection as C; c = C(int(sys.argv[1]));"
    script += "c.recv_bytes(); c.send_bytes(b'\\xff{'); c.recv_bytes()"
    with (
        pytest.raises(TrainingError, match="its process sent 2 bytes that are no JSON"),
        EngineClient([sys.executable, "-c", script], lambda place: None, {}) as engine,
    ):
        engine.ready()


@pytest.mark.parametrize("answered", [False, True], ids=["while starting", "while waiting"])
def test_the_folder_goes_with_the_connection(tmp_path: Path, answered: bool) -> None:
    place = tmp_path / "erv-engine"
    (place / "model").mkdir(parents=True)
    (place / "weights.safetensors").touch()
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    if not answered:
        ours.close()  # what the kernel does for a process that is killed
    worker = threading.Thread(target=serve, args=(theirs, None, "1", str(place)))
    worker.start()
    if answered:
        assert json.loads(ours.recv_bytes()) == {"version": "1"}
        assert place.is_dir()
        ours.close()
    worker.join(10)
    assert not place.exists()


@pytest.mark.slow
def test_a_process_removes_what_a_killed_client_leaves(policy: Policy) -> None:
    engine = start(policy)
    engine.ready()
    engine._connection.close()  # and no cleanup
    assert engine._process.wait(30) == 0
    assert not engine._folder.exists()
    engine.close()


class Fused(torch.nn.Module):
    """Names its parameters as vLLM does."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv_proj, self.norm = torch.nn.Linear(2, 6, bias=False), torch.nn.LayerNorm(2, bias=False)
        self.head = torch.nn.Linear(2, 6, bias=False)
        self.head.weight = self.qkv_proj.weight  # tied

    def load_weights(self, weights: Any) -> set[str]:
        return {name.replace("q_proj", "qkv_proj").replace("k_proj", "qkv_proj") for name, _ in weights}


def test_a_parameter_without_weights_is_an_error(tmp_path: Path) -> None:
    given = {name: torch.zeros(2) for name in ("q_proj.weight", "norm.weight")}
    save_file(given, tmp_path / "all")
    load_all(Fused(), str(tmp_path / "all"))
    del given["norm.weight"]
    save_file(given, tmp_path / "few")
    with pytest.raises(RuntimeError, match=r"1 parameters of Fused got no weights: norm\.weight$"):
        load_all(Fused(), str(tmp_path / "few"))


# --- the correction ---


def test_agreement_is_that_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(3, 5) - 2, torch.randn(3, 5) - 2
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    theirs[0, 1] = math.nan  # vLLM gave no number
    ratios = []
    for row in range(3):
        for token in range(5):
            if mask[row, token] and not math.isnan(theirs[row, token]):
                ratios.append(math.exp(float(ours[row, token]) - float(theirs[row, token])))
    found = agreement(ours, theirs, mask, 1.5)
    assert found["engine/ratio"] == pytest.approx(sum(ratios) / 7)
    assert found["engine/truncated_share"] == pytest.approx(sum(ratio > 1.5 for ratio in ratios) / 7)
    assert found["engine/kl"] == pytest.approx(sum(ratio - math.log(ratio) - 1 for ratio in ratios) / 7)
    assert 0 < found["engine/truncated_share"] < 1
    assert found["engine/without_log_prob"] == pytest.approx(1 / 8)
    assert agreement(ours, ours, mask, 1.5) == {
        "engine/ratio": 1.0,
        "engine/truncated_share": 0.0,
        "engine/kl": 0.0,
        "engine/without_log_prob": 0.0,
    }
    assert agreement(ours, theirs, torch.zeros(3, 5), 1.5) == {}


def test_an_engine_without_log_probabilities_is_refused() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    for value in (math.nan, -math.inf):
        theirs = torch.full((2, 3), value)
        theirs[1, 2] = -1.0  # padding
        with pytest.raises(TrainingError, match="no finite log-probability for any of the 5 tokens"):
            agreement(torch.zeros(2, 3), theirs, mask, 1.5)


def sampled(trainer: Any) -> dict[str, Any]:
    """A batch of completions."""
    rows = [row for row in trainer.train_dataset if row["clip"] in KEYS] * 2
    return trainer._generate_and_score_completions(rows[:4])


@pytest.fixture
def place(folder: Path) -> Any:  # noqa: F811
    policy = load_policy(folder / "sft")
    return lambda path: write_text_folder(policy.model, policy.processor.tokenizer, path)


@pytest.mark.slow
def test_a_whole_run_hands_over_the_weights_of_each_step(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpo, "check_vllm", lambda runtime, machine: None)  # there is neither here
    monkeypatch.setattr(starting, "WORKER", Path(COMMAND[1]))
    shards = {"mafw": ShardReader(folder / "mafw")}
    changes = machine().grpo.model_copy(update={"vllm_python": sys.executable})
    seen: list[dict[str, float]] = []
    trainer, ready = grpo.OmniGRPOTrainer, []

    def build(**arguments: Any) -> Any:  # vLLM measures the GPU's free memory before
        ready.append(arguments["engine"]._ready)
        return trainer(**arguments)

    monkeypatch.setattr(grpo, "OmniGRPOTrainer", build)
    grpo.train_grpo(
        folder / "sft",
        training_rows(shards),
        shards,
        [("letters", many_letters, 1.0)],
        settings(generation="vllm", learning_rate=0.05, lora=LORA.model_dump()),
        output=tmp_path / "out",
        checkpoints=tmp_path / "checkpoints",
        on_metrics=lambda metrics, step: seen.append(metrics),
        seed=0,
        runtime=RUNTIME,
        machine=machine().model_copy(update={"grpo": changes}),
    )
    for metrics in seen:  # with the weights of the step before, the KL of the second would be large
        assert metrics["engine/ratio"] == pytest.approx(1.0, abs=0.02)
        assert metrics["engine/kl"] < 1e-3
        assert metrics["engine/truncated_share"] == 0.0
        assert metrics["engine/without_log_prob"] == 0.0
    assert ready == [True]
    assert len(seen) == 2
    assert seen[0]["grad_norm"] > 0


@pytest.mark.slow
def test_the_loss_is_weighted_by_the_truncated_ratio(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    place: Any,
) -> None:
    cap = 1.05
    with EngineClient(COMMAND, place, {"dtype": "float32", "temper": 1.7}) as engine:
        trainer = trainer_of(folder, tmp_path, twice=False, engine=engine)
        assert trainer.vllm_importance_sampling_mode == "token_truncate"
        assert trainer.vllm_importance_sampling_clip_max == 3.0
        trainer.vllm_importance_sampling_clip_max = cap
        batch = sampled(trainer)
    assert 0 < trainer._metrics["train"]["engine/truncated_share"][0] < 1
    mask = batch["completion_mask"]
    expected = torch.ones(mask.shape)
    for row in range(len(mask)):
        for token in range(int(mask[row].sum())):
            ours = batch["old_per_token_logps"][row, token]
            theirs = batch["sampling_per_token_logps"][row, token]
            expected[row, token] = min(math.exp(float(ours) - float(theirs)), cap)
    torch.testing.assert_close(batch["importance_sampling_ratio"], expected, atol=1e-5, rtol=1e-5)
    assert float(expected.min()) < 0.95
    assert float(expected.max()) == pytest.approx(cap)

    # Without the KL term the loss of a token is proportional to its ratio; at ratios of 1 nothing changes.
    trainer.beta, trainer.use_vllm, trainer.current_gradient_accumulation_steps = 0.0, False, 1
    batch["advantages"] = torch.linspace(-1, 1, len(mask)).reshape(batch["advantages"].shape)
    uncorrected = trainer._compute_loss(trainer.model, dict(batch))
    trainer.use_vllm = True
    ones = dict(batch) | {"importance_sampling_ratio": torch.ones(mask.shape)}
    assert torch.equal(trainer._compute_loss(trainer.model, ones), uncorrected)
    per_row = (expected * mask).sum(1) / mask.sum(1)
    weighted = -(per_row * batch["advantages"].flatten()).mean()  # updates have not begun: other ratios are 1
    torch.testing.assert_close(trainer._compute_loss(trainer.model, dict(batch)), weighted, check_dtype=False)


# --- refusals ---


def test_a_policy_with_positions_of_its_own_is_refused() -> None:
    with pytest.raises(
        TrainingError, match="has positions of its own and vLLM counts the tokens of a prompt"
    ):
        check_embeds(tiny_qwen_omni(TEXTS, 3).model)


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (
            ("policy", "family"),
            "qwen_omni",
            "policy.family qwen_omni, which vLLM can't continue from prompts given",
        ),
        (("machine", "accelerate"), "ddp", "machine.accelerate ddp: vLLM writes for one process"),
        (("machine", "grpo", "static_decode"), True, "static_decode true, which belongs to transformers"),
        (("runtime", "device"), "cpu", "needs a GPU, and runtime.device cpu; set device: cuda"),
        (("grpo", "lora", "quantize"), "nf4", "adapters can't be merged into rounded weights"),
    ],
)
def test_settings_that_vllm_can_t_serve_are_faults(place: tuple[str, ...], value: Any, expected: str) -> None:
    raw = load_settings().model_dump(by_alias=True, mode="json")
    raw["runtime"]["device"] = "auto"
    raw["grpo"] |= {"generation": "vllm", "greedy_rollout": False}
    parse_settings(raw)
    section = raw
    for name in place[:-1]:
        section = section[name]
    section[place[-1]] = value
    raw["grpo"]["lora"]["enabled"] = value == "nf4"
    with pytest.raises(SettingsError, match=r"grpo\.generation is vllm") as caught:
        parse_settings(raw)
    assert expected in str(caught.value)


def training(*variants: str) -> dict[str, Any]:
    """Parameters of a run that trains these variants and registers the first."""
    raw = load_settings().model_dump(by_alias=True, mode="json")
    raw["grpo"] |= {"generation": "vllm", "greedy_rollout": False}
    raw["runtime"]["device"] = "auto"
    raw["compare"].update(train=list(variants), policies=["sft", *variants])
    raw["register"]["policy"] = variants[0]
    for gate in raw["register"]["gates"]:
        gate["against"] = gate["against"] and "sft"
    return raw


def test_rft_alone_needs_no_vllm(tmp_path: Path) -> None:
    raw = training("rft")
    raw["runtime"]["device"] = "cpu"
    chosen = parse_settings(raw)
    assert list(lacks._engine(Environment(tmp_path), chosen)) == []
    stage = PipelineStage("grpo@rft", (), "", (), ())
    assert preflight._engine(Environment(tmp_path), chosen, [stage]) == []
    assert fit.needs_gpu(chosen) == []


def test_rft_beside_grpo_asks_for_vllm_only_where_grpo_runs(tmp_path: Path) -> None:
    chosen = parse_settings(training("erv", "rft"))
    for name, faults in (("rft", 0), ("erv", 1)):
        stage = PipelineStage(f"grpo@{name}", (), "", (), ())
        assert len(preflight._engine(Environment(tmp_path), chosen, [stage])) == faults


def test_an_empty_interpreter_is_refused() -> None:
    raw = load_settings().model_dump(by_alias=True, mode="json")
    raw["machine"]["grpo"]["vllm_python"] = ""
    with pytest.raises(SettingsError, match="vllm_python"):
        parse_settings(raw)


def test_another_version_of_vllm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    root = Path(__file__).parents[4]
    shutil.copy(root / "requirements" / "vllm.txt", tmp_path / "requirements")
    pinned = (root / "requirements" / "vllm.txt").read_text(encoding="utf-8").split("vllm==")[1].strip()
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 0.1.0\n")
    python.chmod(0o755)
    assert f"has vllm 0.1.0, expected {pinned}; install it with" in str(vllm_fault(python, tmp_path))
    raw = load_settings().model_dump(by_alias=True, mode="json")
    raw["runtime"]["device"] = "auto"
    raw["grpo"] |= {"generation": "vllm", "greedy_rollout": False}
    raw["machine"]["grpo"]["vllm_python"] = "python"
    (finding,) = lacks._engine(Environment(tmp_path), parse_settings(raw))
    assert (finding.state, finding.detail) == (
        "fail",
        f"{python} has vllm 0.1.0, expected {pinned}; grpo.generation is vllm",
    )


class _Keyed(Exception):
    """Ends the stage once it has asked for its checkpoints."""


def test_the_key_of_checkpoints_has_the_vllm_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-done training went on with another version."""
    for read in (
        "erv.policies.common.families.check_family",
        "erv.training_sets.check_training_sets",
        "erv.shards.ShardReader",
        "erv.verifier.model.load_for_training",
        "erv.exclusions.read_exclusions",
        "erv.policies.common.policy.stored_prompt",
        "erv.training.grpo.grpo.build_rows",
        "erv.rewards.build_rewards",
    ):
        monkeypatch.setattr(read, MagicMock())
    monkeypatch.setattr("erv.manifest.read_manifests", lambda *_: {})
    python = tmp_path / "python"

    def key(variant: str, version: str, generation: str = "vllm") -> Path:
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)
        raw = training("r1_omni", "rft")
        raw["grpo"]["generation"] = generation
        raw["machine"]["grpo"]["vllm_python"] = str(python)

        def keyed(stage: str, **inputs: Any) -> Path:
            plain = {n: v for n, v in inputs.items() if not isinstance(v, MagicMock | Path)}
            raise _Keyed(checkpoint_folder(stage, **plain))

        monkeypatch.setattr("erv.checkpoints.checkpoint_folder", keyed)
        arguments = MagicMock(variant=variant, exclusions=tmp_path, cold_start=tmp_path, verifier=tmp_path)
        with pytest.raises(_Keyed) as caught:
            stages.grpo.main(arguments, parse_settings(raw), MagicMock())
        return Path(caught.value.args[0])

    assert key("r1_omni", "0.1.0") != key("r1_omni", "0.2.0")
    assert key("r1_omni", "0.1.0") == key("r1_omni", "0.1.0")
    assert key("r1_omni", "0.1.0", "transformers") == key("r1_omni", "0.2.0", "transformers")
    assert key("rft", "0.1.0") == key("rft", "0.2.0"), "it writes with transformers"


def test_the_doctor_says_what_is_missing(tmp_path: Path) -> None:
    raw = load_settings().model_dump(by_alias=True, mode="json")
    raw["runtime"]["device"] = "auto"
    raw["grpo"] |= {"generation": "vllm", "greedy_rollout": False}
    chosen = parse_settings(raw)
    (finding,) = lacks._engine(Environment(tmp_path), chosen)
    assert (finding.name, finding.state, finding.remedy) == ("vLLM", "fail", f"`{INSTALL}`")
    stage = PipelineStage("grpo@erv", (), "", (), ())
    (fault,) = preflight._engine(Environment(tmp_path), chosen, [stage])
    assert "has no vllm; install it with" in fault
    assert preflight._engine(Environment(tmp_path), load_settings(), [stage]) == []
    assert preflight.gpu_faults(chosen, None, ()) == (
        ["grpo.generation: vllm: needs a GPU, and this run has none"],
        [],
    )


def test_it_is_off_by_default() -> None:
    assert load_settings().grpo.generation == "transformers"
    assert settings().generation == "transformers"


def test_without_vllm_or_a_gpu_one_sentence_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    assert vllm_version(Path(sys.executable)) is None  # vLLM is never beside erv
    fault = vllm_fault(tmp_path / "python")
    assert fault is not None
    assert fault.endswith(
        "has no vllm; install it with `python -m venv .venv-vllm && .venv-vllm/bin/pip install -r"
        " requirements/vllm.txt`, or set grpo.generation: transformers"
    )
    assert (Path(__file__).parents[4] / "requirements" / "vllm.txt").is_file()
    chosen = settings(generation="vllm")
    with pytest.raises(TrainingError, match="vllm, which needs a GPU, and this machine has none"):
        grpo.train_grpo(
            tmp_path / "no policy",
            [],
            {},
            [],
            chosen,
            output=tmp_path / "out",
            checkpoints=tmp_path / "checkpoints",
            on_metrics=lambda metrics, step: None,
            seed=0,
            runtime=RUNTIME,
            machine=MACHINE,
        )
