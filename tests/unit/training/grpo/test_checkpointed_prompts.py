"""Prompts are shared when activations are computed twice, and nothing else changes."""

from pathlib import Path

import pytest
import torch

from erv.policies import Policy, load_policy
from erv.shards import ShardReader
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.recomputing import recompute
from erv.training.grpo import grpo
from erv.training.grpo.engine.client import EngineClient
from erv.training.grpo.trainer import OmniGRPOTrainer
from tests.support import tiny_grpo
from tests.support.runtime import MACHINE, RUNTIME
from tests.support.tiny_grpo import CLIPS, LORA, many_letters, settings

KEYS = [f"mafw/{CLIPS[n]}" for n in (2, 0, 2, 7, 0, 7)]  # the last clip's prompt is shorter: it has no sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpo")
    tiny_grpo.write_cold_start(folder / "sft")
    tiny_grpo.write_shards(folder / "mafw")
    return folder


def trainer_of(
    folder: Path,
    output: Path,
    *,
    twice: bool,
    share: bool = True,
    lora: bool = False,
    engine: EngineClient | None = None,
) -> OmniGRPOTrainer:
    """A trainer whose policy is in training mode; with `twice`, its blocks are checkpointed."""
    shards = {"mafw": ShardReader(folder / "mafw")}
    policy: Policy = load_policy(folder / "sft")
    policy.model.config._name_or_path = str(folder / "sft")
    chosen = settings(gradient_checkpointing=twice, generation="transformers" if engine is None else "vllm")
    rewards = [("letters", many_letters, 1.0)]
    torch.manual_seed(0)  # of the adapters
    trainer = OmniGRPOTrainer(
        model=policy.model,
        args=grpo.grpo_config(chosen, 2, rewards, policy, output, 0, RUNTIME, MACHINE),
        reward_funcs=[many_letters],
        train_dataset=grpo.order_rows(tiny_grpo.training_rows(shards), 2, 4, 0),
        processing_class=policy.processor.tokenizer,
        clip_features=ClipFeatures(policy_encoder(policy), shards),
        question=policy.processor.question_inputs(),
        peft_config=grpo.lora_config(policy.model, LORA) if lora else None,
        share_prompts=share,
        engine=engine,
    )
    if twice:
        recompute(trainer.model)  # as `train` does
    for name, value in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(1))
    trainer.model.train()
    return trainer


def learned(trainer: OmniGRPOTrainer) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Log-probabilities of fixed completions, and the gradients of their weighted sum."""
    processor = load_policy(Path(trainer.model.config._name_or_path)).processor
    prompts = [processor.prompt_ids(audio=key != KEYS[3]) for key in KEYS]
    length, pad = max(map(len, prompts)), processor.tokenizer.pad_token_id
    completions = torch.randint(300, 350, (len(KEYS), 6), generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ended = torch.ones_like(completions)
    ended[0, 4:] = 0
    clips = list(dict.fromkeys(KEYS))
    trainer._table["train"] = trainer._clip_features(clips)
    with trainer._rows_of_clips(torch.tensor([clips.index(key) for key in KEYS])):
        log_probs, entropies, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([ids, completions], dim=1),
            torch.cat([mask, ended], dim=1),
            6,
            compute_entropy=True,
        )
    assert entropies is not None
    weights = torch.randn(ended.shape, generator=torch.Generator().manual_seed(2)) * ended
    ((log_probs + entropies) * weights).sum().backward()
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return log_probs.detach() * ended, gradients


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_computing_twice_changes_no_bit_of_shared_prompts(folder: Path, tmp_path: Path, lora: bool) -> None:
    once = trainer_of(folder, tmp_path, twice=False, lora=lora)
    twice = trainer_of(folder, tmp_path, twice=True, lora=lora)
    assert twice.share_prompts
    tokens: dict[str, list[int]] = {"once": [], "twice": []}
    for name, trainer in (("once", once), ("twice", twice)):
        for block in trainer._inner(trainer.model).language_model.layers:
            block.mlp.register_forward_pre_hook(
                lambda module, inputs, name=name: tokens[name].append(inputs[0].shape[:-1].numel())
            )
    expected, gradients = learned(once)
    found, same = learned(twice)
    assert sum(tokens["twice"]) == 2 * sum(tokens["once"]), "every block runs twice on the same tokens"
    assert torch.equal(found, expected)
    assert same.keys() == gradients.keys()
    assert any("k_proj" in name and bool(value.any()) for name, value in same.items())
    for name, value in gradients.items():
        torch.testing.assert_close(same[name], value, rtol=0, atol=0, msg=name)


def test_shared_prompts_computed_twice_are_the_plain_computation(folder: Path, tmp_path: Path) -> None:
    plain, gradients = learned(trainer_of(folder, tmp_path, twice=True, share=False))
    shared, same = learned(trainer_of(folder, tmp_path, twice=True))
    torch.testing.assert_close(shared, plain, atol=2e-5, rtol=1e-4)
    for name, value in gradients.items():
        torch.testing.assert_close(same[name], value, atol=2e-4, rtol=2e-3, msg=name)


def test_a_block_keeps_only_its_inputs_and_the_prompts_keys_and_values(folder: Path, tmp_path: Path) -> None:
    sizes = {}
    for twice in (False, True):
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        trainer = trainer_of(folder, tmp_path, twice=twice)
        weights = {value.untyped_storage().data_ptr() for value in trainer.model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            learned(trainer)
        sizes[twice] = sum(size for place, size in kept.items() if place not in weights)
    assert sizes[True] < 0.6 * sizes[False]
