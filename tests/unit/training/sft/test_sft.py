"""The cold start and generation: what is learned, from which tokens, and how an interrupted run goes on."""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from erv.curves import Curves
from erv.errors import TrainingError
from erv.manifest import ClipRow
from erv.policies import Policy, load_policy
from erv.policies.common.generate import generate_completions
from erv.prompts import format_completion
from erv.sample.tiny_policy import build_tiny_policy
from erv.settings import LoraSettings, SftSettings
from erv.shards import Clip, ShardReader, ShardWriter
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.collate import Collator, completion_loss
from erv.training.common.sft_trainer import OmniSFTTrainer
from erv.training.sft import sft
from tests.support.runtime import RUNTIME, machine
from tests.support.sizes import SMALLEST

SIZES = SMALLEST
SETTINGS = SftSettings(
    max_steps=6,
    epochs=None,
    batch_size=4,
    packing=False,
    gradient_checkpointing=False,
    learning_rate=1e-2,
    warmup_share=0.1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    lora=LoraSettings(enabled=False, rank=4, alpha=8, dropout=0.0, quantize="none"),
)
HERE = machine(save_steps=3)
TEXTS = {
    "anger": format_completion("The voice is loud. She seems angry.", "anger"),
    "fear": format_completion("The voice trembles. He seems afraid.", "fear"),
}


def row(number, split="train"):
    label = sorted(TEXTS)[number % 2]
    name = f"sample_{number:08d}"
    return ClipRow(
        name, "reasoning", 0, split, label, label, None, TEXTS[label], "video", "", 0, "", "", "", None
    )


@pytest.fixture(scope="module")
def rows():
    return [row(i, "validation" if i >= 8 else "train") for i in range(10)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory, rows):
    """Red clips are angry, blue ones afraid; clip 3 has no sound."""
    folder = tmp_path_factory.mktemp("shards") / "reasoning"
    rng = np.random.default_rng(0)
    with ShardWriter(folder, clips_per_shard=4) as writer:
        for number, item in enumerate(rows):
            frames = rng.integers(0, 60, (2, 32, 32, 3), dtype=np.uint8)
            frames[..., 2 * (item.label == "fear")] += 180
            sound = number != 3
            audio = rng.integers(-900, 900, 16000 * sound).astype(np.int16)
            writer.add(Clip(item.clip_id, frames, audio, 16000, has_audio=sound))
    return {"reasoning": ShardReader(folder)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base") / "policy"
    Policy(*build_tiny_policy([*TEXTS.values()] * 3, seed=2, sizes=SIZES)).save(folder)
    return folder


def train(
    base, rows, shards, checkpoints, settings=SETTINGS, on_metrics=lambda metrics, step: None, here=HERE
):
    return sft.train_sft(
        load_policy(base),
        rows,
        shards,
        settings,
        checkpoints=checkpoints,
        on_metrics=on_metrics,
        seed=0,
        runtime=RUNTIME,
        machine=here,
    )


@pytest.fixture(scope="module")
def trained(base, rows, shards, tmp_path_factory):
    """An uninterrupted run with its metrics."""
    seen = []
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    policy = train(
        base, rows, shards, checkpoints, on_metrics=lambda metrics, step: seen.append((step, metrics))
    )
    return policy, seen, checkpoints


def weights(policy):
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


def test_labels_cover_the_completion_alone(base, rows, shards):
    policy = load_policy(base)
    examples = sft.build_examples(policy, rows, shards)["train"]
    batch = Collator(policy, ClipFeatures(policy_encoder(policy), shards))(examples[:4])
    tokenizer = policy.processor.tokenizer
    for labels, item in zip(batch["labels"], rows[:4], strict=True):
        learned = labels[labels != -100]
        assert learned[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learned, skip_special_tokens=True) == item.completion
    silent = batch["input_ids"][3]
    assert policy.model.config.audio_token_id not in silent
    assert policy.model.config.video_token_id in silent


def test_the_loss_of_kept_positions_is_the_models_own(base, rows, shards):
    policy = load_policy(base)
    examples = sft.build_examples(policy, rows, shards)["train"]
    batch = Collator(policy, ClipFeatures(policy_encoder(policy), shards))(examples[:4])
    with torch.no_grad():
        ours, tokens = completion_loss(policy.model, batch)
        assert torch.isclose(ours / tokens, policy.model(**batch).loss, atol=1e-5)
    assert tokens == int((batch["labels"] != -100).sum())


def test_it_learns_and_towers_stay(base, trained):
    policy, seen, _ = trained
    before, after = weights(load_policy(base)), weights(policy)
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed >= {"language_model", "visual_projector", "audio_projector", "gate"}
    assert not changed & {"vision_tower", "audio_tower", "gate_encoder"}
    losses = [metrics["validation_loss"] for _, metrics in seen if "validation_loss" in metrics]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_how_often_a_checkpoint_is_saved_changes_neither_curves_nor_weights(
    base, rows, shards, trained, tmp_path
):
    def curves_and_weights(folder, save_steps):
        curves = Curves(folder, lambda values, step: None)
        policy = train(
            base, rows, shards, folder / "it", on_metrics=curves, here=machine(save_steps=save_steps)
        )
        curves.write(folder / "curves.csv")
        return (folder / "curves.csv").read_bytes(), weights(policy)

    often, seldom = curves_and_weights(tmp_path / "1", 1), curves_and_weights(tmp_path / "100", 100)
    assert often[0] == seldom[0]
    points = [line.split(",")[0] for line in often[0].decode().splitlines() if "validation_loss" in line]
    assert points == ["2", "4", "6"]
    for name, value in weights(trained[0]).items():
        assert torch.equal(often[1][name], value), name
        assert torch.equal(seldom[1][name], value), name


def test_measuring_the_validation_loss_changes_no_weight_and_no_random_number(
    base, rows, shards, trained, tmp_path, monkeypatch
):
    original = OmniSFTTrainer.mean_loss

    def watched(self, examples, collate):
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        loss = original(self, examples, collate)
        after = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        assert torch.equal(before[0], after[0])
        assert (before[1] == after[1]).all()
        assert before[2] == after[2]
        return loss

    monkeypatch.setattr(OmniSFTTrainer, "mean_loss", watched)
    often = weights(train(base, rows, shards, tmp_path / "watched"))
    monkeypatch.setattr(OmniSFTTrainer, "mean_loss", lambda *arguments: None)
    never = weights(train(base, rows, shards, tmp_path / "never"))
    for name, value in weights(trained[0]).items():
        assert torch.equal(often[name], value), name
        assert torch.equal(never[name], value), name


@pytest.mark.parametrize("rows_per_pass", [None, 2])
def test_interrupted_and_resumed_is_the_uninterrupted_run(
    base, rows, shards, trained, tmp_path, monkeypatch, rows_per_pass
):
    """Bit for bit; with other passes than before, as after it ran out of memory, but for rounding."""
    whole = weights(trained[0])

    class Crash(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise KeyboardInterrupt

    original = OmniSFTTrainer.__init__

    def crashing(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(Crash())

    with monkeypatch.context() as patch:
        patch.setattr(OmniSFTTrainer, "__init__", crashing)
        with pytest.raises(KeyboardInterrupt):
            train(base, rows, shards, tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint-3"]
    steps = []
    here = machine(rows_per_pass=rows_per_pass, save_steps=3)
    resumed = train(base, rows, shards, tmp_path, on_metrics=lambda _, step: steps.append(step), here=here)
    assert set(steps) == {4, 6}, "it began again instead of going on from step 3"
    for name, value in weights(resumed).items():
        if rows_per_pass is None:
            assert torch.equal(value, whole[name]), name
        else:
            torch.testing.assert_close(value, whole[name], atol=1e-4, rtol=0, msg=name)


def test_a_checkpoint_cut_off_while_written_is_not_resumed_from(base, rows, shards, trained, tmp_path):
    shutil.copytree(trained[2] / "checkpoint-3", tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-3" / "complete.json").unlink()
    steps = []
    train(base, rows, shards, tmp_path, on_metrics=lambda metrics, step: steps.append(step))
    assert min(steps) == 2, "the whole run was expected"


def test_a_loss_that_is_not_finite_stops_it(base, rows, shards, tmp_path):
    broken = load_policy(base)
    with torch.no_grad():
        broken.model.model.language_model.norm.weight.fill_(float("nan"))
    broken.save(tmp_path / "broken")
    with pytest.raises(
        TrainingError, match=r"sft: the loss is nan at step 1; lower sft.learning_rate \(0.01\)"
    ):
        train(tmp_path / "broken", rows, shards, tmp_path / "checkpoints")


def test_weights_that_are_not_finite_are_never_written(base, rows, shards, tmp_path):
    wild = SETTINGS.model_copy(update={"max_steps": 1, "learning_rate": 3e38})
    with pytest.raises(TrainingError, match=r"sft: a weight is not finite after step 1; lower sft"):
        train(base, rows, shards, tmp_path, wild)
    assert not list(tmp_path.iterdir())


def test_no_clip_left_is_said(base, rows, shards, tmp_path):
    held_out = [replace(item, dataset="explained") for item in rows if item.split != "train"]
    message = r"no training clip is left; see data/quarantine/explained\.parquet for the reasons"
    with pytest.raises(TrainingError, match=message):
        train(base, held_out, {"explained": shards["reasoning"]}, tmp_path)


def test_the_saved_policy_holds_no_pickle(trained, tmp_path):
    trained[0].save(tmp_path / "policy")
    assert {p.suffix for p in (tmp_path / "policy").rglob("*") if p.is_file()} == {
        ".json",
        ".jinja",
        ".safetensors",
    }


def completions(policy, clips, **changes):
    options = {"batch_size": 4, "max_new_tokens": 12, "temperature": 0.0, "seed": 0, **changes}
    return generate_completions(policy, clips, **options)


def test_a_completion_does_not_depend_on_the_batch(trained, shards):
    done = []
    together = completions(trained[0], iter(shards["reasoning"]), progress=done.append)
    alone = completions(trained[0], iter(shards["reasoning"]), batch_size=1)
    assert together == alone
    assert list(together) == shards["reasoning"].clip_ids
    assert done == [4, 8, 10]


def test_sampling_repeats_with_its_seed_and_leaves_the_stream_alone(trained, shards):
    state = torch.get_rng_state()
    first = completions(trained[0], iter(shards["reasoning"]), temperature=1.0)
    assert torch.equal(state, torch.get_rng_state())
    assert first == completions(trained[0], iter(shards["reasoning"]), temperature=1.0)
    assert first != completions(trained[0], iter(shards["reasoning"]), temperature=1.0, seed=1)
