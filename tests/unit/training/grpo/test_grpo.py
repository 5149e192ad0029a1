"""GRPO on a very small policy: what trains and what does not, what runs once, resuming bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from erv.checkpoints import is_complete, latest_checkpoint
from erv.errors import DataError, SettingsError, TrainingError
from erv.policies import load_policy
from erv.prompts import user_content
from erv.settings import LoraSettings, RewardSettings, VariantSettings
from erv.shards import ShardReader
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.throughput import TIMED
from erv.training.grpo import grpo
from erv.training.grpo.checked_reward import CheckedReward
from erv.training.grpo.grpo import build_rows, order_rows, train_grpo, variant_settings
from erv.training.grpo.trainer import OmniGRPOTrainer
from tests.support.runtime import MACHINE, RUNTIME, machine
from tests.support.tiny_grpo import (
    CLIPS,
    LORA,
    letter_e,
    manifest_row,
    many_letters,
    settings,
    text,
    training_rows,
    write_cold_start,
    write_shards,
)


@pytest.fixture(scope="module")
def cold_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cold_start(tmp_path_factory.mktemp("policies") / "sft")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardReader]:
    return {"mafw": ShardReader(write_shards(tmp_path_factory.mktemp("shards") / "mafw"))}


@pytest.fixture(scope="module")
def rows(shards: dict[str, ShardReader]) -> list[dict[str, Any]]:
    return training_rows(shards)


Train = Callable[..., tuple[Path, list[dict[str, float]]]]


@pytest.fixture
def train(
    cold_start: Path, shards: dict[str, ShardReader], rows: list[dict[str, Any]], tmp_path: Path
) -> Train:
    def run(name: str = "out", rewards: Any = None, stop_in: int | None = None, **changes: Any) -> Any:
        options = {key: changes.pop(key) for key in ("seed", "kept") if key in changes}
        rows_per_pass, save_steps = changes.pop("rows_per_pass", None), changes.pop("save_steps", 2)
        seen: list[dict[str, float]] = []

        def on_metrics(metrics: dict[str, float], step: int) -> None:
            seen.append(metrics)
            if step == stop_in:
                raise KeyboardInterrupt

        folder = train_grpo(
            cold_start,
            rows,
            shards,
            rewards or [("letters", many_letters, 1.0), ("e", letter_e, 0.5)],
            settings(**changes),
            output=tmp_path / name,
            checkpoints=tmp_path / f"{name}-checkpoints",
            on_metrics=on_metrics,
            runtime=RUNTIME,
            machine=machine(rows_per_pass=rows_per_pass, save_steps=save_steps),
            **({"seed": 0} | options),
        )
        return folder, seen

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make_trainer(
    policy_folder: Path,
    shards: dict[str, ShardReader],
    rows: list[dict[str, Any]],
    output: Path,
    reference: Path | None = None,
    **options: Any,
) -> OmniGRPOTrainer:
    policy = load_policy(policy_folder)
    policy.model.config._name_or_path = str(reference or policy_folder)
    chosen = settings(temperature=0.7)
    rewards = [("letters", many_letters, 1.0)]
    return OmniGRPOTrainer(
        model=policy.model,
        args=grpo.grpo_config(chosen, 2, rewards, policy, output, 0, RUNTIME, MACHINE),
        reward_funcs=[many_letters],
        train_dataset=order_rows(rows, 2, 4, 0),
        processing_class=policy.processor.tokenizer,
        clip_features=ClipFeatures(policy_encoder(policy), shards),
        question=policy.processor.question_inputs(),
        **options,
    )


# --- what trains ---


def test_projectors_and_language_model_train_and_towers_do_not(train: Train, cold_start: Path) -> None:
    folder, seen = train()
    before, after = weights(cold_start), weights(folder)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    towers = {name for name in before if "vision_tower" in name or "audio_tower" in name}
    assert towers
    assert not changed & towers
    for part in (
        "language_model.layers.0",
        "language_model.layers.1",
        "visual_projector",
        "audio_projector",
        "gate.",
    ):
        assert any(part in name for name in changed), f"nothing of {part} has changed"
    assert seen[0]["learning_rate"] == pytest.approx(1e-3)


def test_frozen_projectors_leave_the_language_model_to_train(train: Train, cold_start: Path) -> None:
    folder, _ = train(freeze_projectors=True)
    before, after = weights(cold_start), weights(folder)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".language_model." in name or name.startswith("lm_head") for name in changed)


def test_metrics_are_passed_on_live_under_our_names(train: Train) -> None:
    _, seen = train(rewards=[("letters", many_letters, 1.0), ("e", letter_e, 0.5)])
    assert len(seen) == 2
    expected = {
        "loss",
        "reward",
        "reward_std",
        "zero_std_share",
        "reward/letters",
        "reward/e",
        "kl",
        "entropy",
        "completion_length",
        "truncated_share",
        "clipped_share",
        "grad_norm",
        "learning_rate",
        "step_seconds",
        "tokens_per_second",
        "trained_tokens_per_second",
        "drift_warnings",
        "explanations/sentences",
        "explanations/words",
        "explanations/repeated",
        "explanations/listing",
        "explanations/missing",
        "answers/listing",
    }
    by_class = {name for name in seen[0] if name.startswith("reward_by_class/")}
    assert set(seen[0]) == expected | by_class
    assert {name.split("/")[1] for name in by_class} == {"letters", "e"}
    assert seen[0]["explanations/missing"] == 1.0  # eight tokens of a random policy have no think block
    for metrics in seen:
        assert metrics["reward"] == pytest.approx(
            metrics["reward/letters"] + 0.5 * metrics["reward/e"], rel=1e-5
        )
        assert 0 < metrics["completion_length"] <= 8


@pytest.mark.parametrize("lora", [settings().lora, LORA], ids=["full", "lora"])
def test_the_reference_is_the_cold_start(train: Train, lora: LoraSettings) -> None:
    _, seen = train(lora=lora)
    assert seen[0]["kl"] == 0.0
    assert seen[1]["kl"] > 0.0


def test_a_reference_that_is_not_the_cold_start_is_refused(
    cold_start: Path, shards: dict[str, ShardReader], rows: list[dict[str, Any]], train: Train, tmp_path: Path
) -> None:
    other, _ = train("other", max_steps=1)
    trainer = make_trainer(cold_start, shards, rows, tmp_path / "checkpoints", reference=other)
    with pytest.raises(TrainingError, match="differs from the cold start"):
        grpo._check_reference(trainer)


@pytest.mark.slow
def test_temperature_and_seed_reach_generation(train: Train) -> None:
    _, first = train("first", max_steps=1)
    _, again = train("again", max_steps=1)
    _, other = train("other", max_steps=1, seed=1)
    assert without_time(first[0]) == without_time(again[0])
    assert first[0]["reward"] != other[0]["reward"]


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_the_update_is_the_same_in_several_passes(train: Train, loss_type: str) -> None:
    one, _ = train("one", max_steps=1, loss_type=loss_type)
    four, seen = train("four", max_steps=1, loss_type=loss_type, rows_per_pass=2)
    assert len(seen) == 1
    before, after = weights(one), weights(four)
    for name, value in before.items():
        # Adam's first step is lr times the sign of the gradient; where that is rounding, signs may differ.
        close = torch.isclose(value, after[name], atol=1e-5, rtol=0)
        assert close.float().mean() > 0.98, name


def test_the_device_of_the_settings_is_the_one_of_the_trainer(
    cold_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(cold_start)  # on the CPU, as everywhere before the trainer moves it
    for kind, on_cpu in (("cuda", False), ("cpu", True)):
        with monkeypatch.context() as patch:
            patch.setattr(grpo, "resolve_device", lambda name, kind=kind: torch.device(kind))
            config = grpo.grpo_config(settings(), 2, [], policy, tmp_path, 0, RUNTIME, MACHINE)
        assert config.use_cpu is on_cpu


def test_passes_must_divide_the_step(train: Train) -> None:
    with pytest.raises(TrainingError, match=r"3 rows per pass .* don't divide the 8 completions"):
        train(rows_per_pass=3)


# --- what is computed once ---


def scored(trainer: OmniGRPOTrainer, keys: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of fixed completions of different lengths, with their tokens and mask."""
    tokenizer = trainer.processing_class
    generator = torch.Generator().manual_seed(1)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": user_content(audio=key != f"mafw/{CLIPS[-1]}")}],
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
        for key in keys
    ]
    length = max(map(len, prompts))
    completions = torch.randint(300, 350, (len(keys), 6), generator=generator)
    ids = torch.tensor([[tokenizer.pad_token_id] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    completion_mask = torch.ones_like(completions)
    completion_mask[0, 4:] = 0
    unique = list(dict.fromkeys(keys))
    trainer._table["train"] = trainer._clip_features(unique)
    clip_index = torch.tensor([unique.index(key) for key in keys])
    trainer.model.train()
    with trainer._rows_of_clips(clip_index):
        log_probs, entropies, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([ids, completions], dim=1),
            torch.cat([mask, completion_mask], dim=1),
            6,
            compute_entropy=True,
        )
    assert entropies is not None
    return log_probs * completion_mask, entropies * completion_mask, torch.cat([ids, completions], dim=1)


# The last clip has no sound: its prompt is shorter, so that the batch is padded on the left.
KEYS = [f"mafw/{CLIPS[n]}" for n in (2, 0, 2, 7, 0, 7)]


@pytest.mark.parametrize("share", [True, False], ids=["shared prompts", "plain"])
def test_scores_equal_those_of_the_raw_model(
    cold_start: Path, shards: dict[str, ShardReader], rows: list[dict[str, Any]], tmp_path: Path, share: bool
) -> None:
    trainer = make_trainer(cold_start, shards, rows, tmp_path, share_prompts=share)
    assert trainer.share_prompts is share
    log_probs, _, ids = scored(trainer, KEYS)
    raw = load_policy(cold_start)
    for row, key in enumerate(KEYS):
        clip = shards["mafw"].get(key.removeprefix("mafw/"))
        inputs = raw.processor.prepare_clip(clip.frames, clip.audio, clip.sample_rate)
        tokens = ids[row][ids[row] != raw.processor.tokenizer.pad_token_id].unsqueeze(0)
        with torch.no_grad():
            logits = raw.model(
                input_ids=tokens,
                pixel_values=inputs["pixel_values"].unsqueeze(0),
                input_features=inputs["input_features"].unsqueeze(0),
                **raw.processor.gate_inputs(1),
            ).logits
        expected = (logits[0, :-1] / 0.7).log_softmax(-1).gather(-1, tokens[0, 1:, None])[-6:, 0]
        kept = 4 if row == 0 else 6
        torch.testing.assert_close(log_probs[row, :kept], expected[:kept], atol=2e-5, rtol=1e-4)


def test_sharing_prompts_changes_neither_scores_nor_gradients(
    cold_start: Path, shards: dict[str, ShardReader], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    results = []
    for share in (True, False):
        trainer = make_trainer(cold_start, shards, rows, tmp_path, share_prompts=share)
        log_probs, entropies, _ = scored(trainer, KEYS)
        (log_probs.sum() + entropies.sum()).backward()
        gradients = {
            name: value.grad for name, value in trainer.model.named_parameters() if value.grad is not None
        }
        results.append((log_probs.detach(), entropies.detach(), gradients))
    (shared, plain) = results
    torch.testing.assert_close(shared[0], plain[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(shared[1], plain[1], atol=2e-5, rtol=1e-4)
    assert shared[2].keys() == plain[2].keys()
    for name, gradient in shared[2].items():
        torch.testing.assert_close(gradient, plain[2][name], atol=2e-4, rtol=2e-3, msg=name)


def test_sharing_prompts_changes_no_completion(
    cold_start: Path, shards: dict[str, ShardReader], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Groups of 3, 2 and 1, padding on the left, and rows that end early and are dropped."""
    keys = [f"mafw/{CLIPS[n]}" for n in (7, 0, 2, 7, 0, 7)]
    written = []
    for share in (True, False):
        trainer = make_trainer(cold_start, shards, rows, tmp_path, share_prompts=share)
        tokenizer, limit = trainer.processing_class, 24
        trainer.max_completion_length = trainer.generation_config.max_new_tokens = limit
        # Every eighth token ends, so that rows end at different times.
        trainer.eos_token_ids = [tokenizer.eos_token_id, *range(9, len(tokenizer), 8)]
        trainer.generation_config.eos_token_id = trainer.eos_token_ids
        prompts = [next(row["prompt"] for row in rows if row["clip"] == key) for key in keys]
        place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        trainer._table["train"] = trainer._clip_features(list(place))
        trainer.model.train()
        with trainer._rows_of_clips(torch.tensor([place[key] for key in keys])):
            ids, _, fields = trainer._tokenize_prompts(prompts)
            written.append(trainer._generate_single_turn(ids, None, fields, 1)[0])
    shared, plain = written
    assert len({len(row) for row in shared}) > 1
    assert shared == plain


@pytest.mark.parametrize("share", [True, False], ids=["shared prompts", "plain"])
def test_towers_run_once_per_clip_and_the_projector_once_per_generation(
    cold_start: Path, shards: dict[str, ShardReader], rows: list[dict[str, Any]], tmp_path: Path, share: bool
) -> None:
    trainer = make_trainer(cold_start, shards, rows, tmp_path, share_prompts=share)
    policy_model: Any = trainer.model
    projected: list[int] = []
    policy_model.model.visual_projector.register_forward_hook(lambda *call: projected.append(len(call[2])))
    generated: list[int] = []
    original = trainer._generate_single_turn

    def watch(*args: Any, **kwargs: Any) -> Any:
        before = len(projected)
        result = original(*args, **kwargs)
        generated.append(len(projected) - before)
        return result

    trainer._generate_single_turn = watch
    trainer.train()
    assert generated == [1, 1]
    assert projected == [4, 4] * 2  # per step: generation and scoring, each with the four distinct clips
    assert trainer._clip_features.encoded == 8


def test_the_batches_of_an_evaluation_draw_different_completions(
    cold_start: Path, shards: dict[str, ShardReader], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    trainer = make_trainer(cold_start, shards, rows, tmp_path / "checkpoints")
    batch = [row for row in rows[:2] for _ in range(trainer.num_generations)]

    def written(model_trains: bool) -> list[list[int]]:
        trainer.model.train(model_trains)
        return trainer._generate_and_score_completions(batch)["completion_ids"].tolist()

    training, first, second = written(True), written(False), written(False)
    assert first != second
    assert training not in (first, second)
    trainer.state.global_step += 1
    assert written(False) not in (first, second)
    again = make_trainer(cold_start, shards, rows, tmp_path / "again")
    again.model.eval()
    assert again._generate_and_score_completions(batch)["completion_ids"].tolist() == first


def test_features_forget_the_least_recently_used(cold_start: Path, shards: dict[str, ShardReader]) -> None:
    encode = policy_encoder(load_policy(cold_start))
    one = ClipFeatures(encode, shards)
    alone = one([f"mafw/{CLIPS[0]}"])
    size = sum(value.numel() * value.element_size() for value in alone.values())
    features = ClipFeatures(encode, shards, memory_bytes=2 * size)
    keys = [f"mafw/{clip_id}" for clip_id in CLIPS[:3]]
    features(keys[:2])
    features(keys[:1])
    together = features([keys[2], keys[0]])
    assert features.encoded == 3
    features([keys[1]])
    assert features.encoded == 4
    for name, value in alone.items():
        assert torch.equal(value[0], together[name][1])
    with pytest.raises(DataError, match="no shards of data set 'dfew'"):
        features(["dfew/1"])


# --- resuming and the output folder ---


@pytest.mark.parametrize("lora", [settings().lora, LORA], ids=["full", "lora"])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    train: Train, tmp_path: Path, lora: LoraSettings
) -> None:
    whole, seen = train("whole", max_steps=4, lora=lora)
    with pytest.raises(KeyboardInterrupt):
        train("resumed", max_steps=4, lora=lora, stop_in=3)
    checkpoints = tmp_path / "resumed-checkpoints"
    newest = latest_checkpoint(checkpoints)
    assert newest is not None
    assert newest.name == "checkpoint-2"
    assert not (newest / "training_args.bin").exists()
    assert not (tmp_path / "resumed").exists()
    (checkpoints / "checkpoint-3").mkdir()  # as if killed while writing
    (checkpoints / "checkpoint-3" / "model.safetensors").write_bytes(b"half")
    resumed, rest = train("resumed", max_steps=4, lora=lora)
    assert [without_time(metrics) for metrics in rest] == [without_time(metrics) for metrics in seen[2:]]
    assert files(resumed) == files(whole)


@pytest.mark.slow
def test_a_run_goes_on_in_smaller_passes(train: Train) -> None:
    """As after it ran out of memory: the same completions and, but for rounding, the same updates."""
    whole, seen = train("whole", max_steps=3)
    with pytest.raises(KeyboardInterrupt):
        train("resumed", max_steps=3, stop_in=3)
    resumed, rest = train("resumed", max_steps=3, rows_per_pass=2)
    assert len(rest) == 1
    for key in ("reward", "reward_std", "completion_length"):
        assert rest[0][key] == seen[2][key], key
    before = weights(whole)
    for name, value in weights(resumed).items():
        assert torch.isclose(value, before[name], atol=1e-5, rtol=0).float().mean() > 0.98, name


class Counter:
    """A state of a reward: how many steps it has seen."""

    def __init__(self) -> None:
        self.steps = 0
        self.whole_when_saved: list[bool] = []

    def reward(self, completions: list[Any], **columns: Any) -> list[float]:
        self.steps += 1
        return [float(self.steps)] * len(completions)

    def save(self, checkpoint: Path) -> None:
        self.whole_when_saved.append(is_complete(checkpoint))
        (checkpoint / "steps").write_text(str(self.steps))

    def load(self, checkpoint: Path) -> None:
        self.steps = int((checkpoint / "steps").read_text())


def test_what_rewards_keep_is_part_of_a_checkpoint(train: Train, tmp_path: Path) -> None:
    first, second = Counter(), Counter()
    with pytest.raises(KeyboardInterrupt):
        train(max_steps=4, stop_in=3, kept=[first], rewards=[("steps", first.reward, 1.0)])
    assert first.whole_when_saved == [False]  # written before the record that makes the checkpoint whole
    _, seen = train(max_steps=4, kept=[second], rewards=[("steps", second.reward, 1.0)])
    assert [metrics["reward/steps"] for metrics in seen] == [3.0, 4.0]


def without_time(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in TIMED}


def test_a_finished_run_that_lost_its_output_only_writes_it_again(train: Train) -> None:
    whole, _ = train(max_steps=2)
    before = files(whole)
    again, seen = train(max_steps=2)
    assert seen == []
    assert files(again) == before


def test_only_the_two_newest_checkpoints_stay(train: Train, tmp_path: Path) -> None:
    train("kept", max_steps=4, save_steps=1)
    assert sorted(path.name for path in (tmp_path / "kept-checkpoints").iterdir()) == [
        "checkpoint-3",
        "checkpoint-4",
    ]


def test_the_output_is_a_policy_and_holds_nothing_of_the_run(
    train: Train, tmp_path: Path, cold_start: Path
) -> None:
    folder, _ = train()
    assert set(files(folder)) == set(files(cold_start))
    for name, content in files(folder).items():
        assert str(tmp_path).encode() not in content, name
        assert str(cold_start).encode() not in content, name
        if name not in ("model.safetensors", "config.json"):
            assert content == (cold_start / name).read_bytes(), name
    after, before = (load_policy(place).model.config.to_dict() for place in (folder, cold_start))
    del after["_name_or_path"], before["_name_or_path"]
    assert after == before


def test_lora_trains_the_language_model_alone_and_writes_adapter_and_merged_weights(
    train: Train, cold_start: Path, shards: dict[str, ShardReader]
) -> None:
    from peft import PeftModel

    folder, _ = train(lora=LORA)
    before, after = weights(cold_start), weights(folder)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("language_model.layers" in name and "_proj" in name for name in changed)

    adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert adapter["target_modules"] == sorted(adapter["target_modules"]), "a set's order is not content"
    assert adapter["base_model_name_or_path"] is None
    assert not any("tower" in target for target in adapter["target_modules"])
    assert adapter["target_modules"] == sorted(adapter["target_modules"])
    assert not (folder / "adapter" / "README.md").exists()

    merged, base = load_policy(folder), load_policy(cold_start)
    adapted = PeftModel.from_pretrained(base.model, folder / "adapter").merge_and_unload()
    for (name, one), (_, other) in zip(
        merged.model.named_parameters(), adapted.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6, msg=name)


# --- rewards ---


def test_a_reward_that_raises_stops_the_stage_and_is_named(train: Train, tmp_path: Path) -> None:
    def broken(completions: list[Any], **columns: Any) -> list[float]:
        return [1.0 / (len(text(completions[0])) - len(text(completions[0])))]

    with pytest.raises(TrainingError, match=r"reward 'my_package\.broken' raised ZeroDivisionError"):
        train(rewards=[("letters", many_letters, 1.0), ("my_package.broken", broken, 1.0)])
    assert not (tmp_path / "out").exists()


def test_rewards_get_completions_and_columns_and_are_weighted(train: Train) -> None:
    calls: list[dict[str, Any]] = []

    def watching(completions: list[Any], **columns: Any) -> list[float]:
        calls.append(columns | {"completions": completions})
        return [1.0] * len(completions)

    train(max_steps=1, rewards=[("watching", watching, 2.0)])
    (call,) = calls
    assert len(call["completions"]) == len(call["clip_id"]) == 8
    assert call["solution"] == ["<answer>happiness</answer>"] * 8
    assert call["dataset"] == ["mafw"] * 8
    assert len(set(call["clip_id"])) == 4
    assert call["clip_id"][0] == call["clip_id"][1]
    assert all(message["role"] == "assistant" for (message,) in call["completions"])


def test_none_means_not_scorable(train: Train, cold_start: Path) -> None:
    def every_other(completions: list[Any], **columns: Any) -> list[float | None]:
        return [None if index % 2 else 3.0 for index in range(len(completions))]

    def never(completions: list[Any], **columns: Any) -> list[float | None]:
        return [None] * len(completions)

    _, seen = train(rewards=[("half", every_other, 1.0), ("never", never, 1.0)])
    assert seen[0]["reward/half"] == 3.0
    assert seen[0]["reward"] == 3.0
    assert "reward/never" not in seen[0]

    folder, seen = train("unscored", max_steps=1, rewards=[("never", never, 1.0)])
    assert "reward" not in seen[0]
    assert seen[0]["loss"] == 0.0
    before, after = weights(cold_start), weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before), "moved without any reward"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1.0], "'mine' returned 1 values for 2 completions"),
        ([1.0, float("nan")], "'mine' returned nan; expected a finite number"),
        ([1.0, float("inf")], "'mine' returned inf"),
        ([1.0, "good"], "'mine' returned 'good'"),
        (3, "'mine' raised TypeError"),
    ],
)
def test_what_a_reward_must_not_return(values: Any, sentence: str) -> None:
    reward = CheckedReward("mine", lambda **columns: values)
    with pytest.raises(TrainingError) as caught:
        reward(completions=["a", "b"])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensors_and_coroutines_are_rewards_too() -> None:
    async def later(completions: list[Any], **columns: Any) -> list[float]:
        return [0.25] * len(completions)

    assert CheckedReward("a", lambda **columns: torch.tensor([1, 0]))(completions=["a", "b"]) == [1.0, 0.0]
    assert CheckedReward("b", later)(completions=["a"]) == [0.25]


def test_a_loss_that_is_not_finite_stops_the_stage(train: Train, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"grpo step 2: the policy's output is not finite; lower"):
        train(max_steps=4, learning_rate=1e30, beta=1.0)
    assert not (tmp_path / "out").exists()


# --- rows ---


def test_rows_are_training_clips_that_have_shards(shards: dict[str, ShardReader]) -> None:
    manifest = [
        manifest_row("00002"),
        manifest_row("00001", "test"),
        manifest_row("00000"),
        manifest_row("99999"),
    ]
    rows = build_rows([manifest, [manifest_row("00007")]], shards)
    assert [row["clip"] for row in rows] == ["mafw/00000", "mafw/00002", "mafw/00007"]
    assert rows[0]["solution"] == "<answer>happiness</answer>"
    assert "<audio>" in rows[0]["prompt"][0]["content"]
    assert "<audio>" not in rows[2]["prompt"][0]["content"]
    with pytest.raises(DataError, match="manifest of dfew was given without its shards"):
        build_rows([[manifest_row("1", dataset="dfew")]], shards)


def test_order_is_by_seed_and_a_step_never_shows_a_clip_twice(rows: list[dict[str, Any]]) -> None:
    clips = order_rows(rows, steps=6, per_step=3, seed=0)["clip"]
    assert clips == order_rows(rows, steps=6, per_step=3, seed=0)["clip"]
    assert clips != order_rows(rows, steps=6, per_step=3, seed=1)["clip"]
    assert clips[:9] == order_rows(rows, steps=3, per_step=3, seed=0)["clip"]
    assert len(clips) == 18
    for start in range(0, 18, 3):
        assert len(set(clips[start : start + 3])) == 3
    with pytest.raises(TrainingError, match="prompts_per_step is 9, but there are only 8"):
        order_rows(rows, steps=1, per_step=9, seed=0)


def test_an_unknown_variant_is_named() -> None:
    variant = VariantSettings(rewards=(RewardSettings(name="format", weight=1.0),))
    with pytest.raises(SettingsError, match="no 'evr', expected one of erv"):
        variant_settings({"erv": variant}, "evr")
