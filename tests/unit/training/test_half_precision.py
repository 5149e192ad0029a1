"""Frozen weights in half precision: the bits that autocast computes, and the exact weights afterwards."""

import copy
import functools
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn

from erv.policies import Policy
from erv.sample.tiny_policy import build_tiny_policy
from erv.shards import Clip
from erv.training.common.adapters import lora_config
from erv.training.common.clip_features import policy_encoder
from erv.training.common.half_precision import frozen_linears_in
from tests.support.tiny_grpo import LORA, SIZES
from tests.support.tiny_qwen_omni import tiny_qwen_omni

HALF = functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16)


TEXTS = ["The person smiles.", "A loud voice."] * 9
FAMILIES = {
    "humanomni": lambda: Policy(*build_tiny_policy(TEXTS, seed=3, sizes=SIZES)),
    "qwen_omni": lambda: tiny_qwen_omni(TEXTS, 3),
}


def inputs_of(policy: Policy) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(1)
    shape = (policy.processor.num_frames, *[policy.processor.image_size] * 2, 3)
    frames = torch.randint(0, 255, shape, generator=noise, dtype=torch.uint8).numpy()
    sound = torch.randint(-9000, 9000, (12000,), generator=noise).short().numpy()
    features = policy_encoder(policy)(Clip("a", frames, sound, 16000))
    ids = torch.tensor([policy.processor.prompt_ids()])
    question = policy.processor.question_inputs()
    return {"input_ids": ids, **question, **{name: value[None] for name, value in features.items()}}


def passed(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits under autocast, and the gradients of what trains."""
    model.zero_grad()
    with HALF():
        logits = model(**inputs).logits
    logits.float().logsumexp(-1).sum().backward()
    return logits.detach(), {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_base_in_half_precision_computes_the_same_bits(family: str) -> None:
    policy = FAMILIES[family]()
    inputs = inputs_of(policy)
    model = get_peft_model(policy.model, lora_config(policy.model, LORA))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(value, generator=torch.Generator().manual_seed(2))
    before = copy.deepcopy(model.state_dict())
    logits, gradients = passed(model, inputs)
    assert gradients
    assert all("lora_" in name for name in gradients)
    with frozen_linears_in(torch.bfloat16, [model, model]):
        held = {name: value.dtype for name, value in model.named_parameters()}
        found, same = passed(model, inputs)
    assert torch.equal(found, logits)
    assert same.keys() == gradients.keys()
    assert all(torch.equal(same[name], value) for name, value in gradients.items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    halved = {name for name, dtype in held.items() if dtype == torch.bfloat16}
    assert sum(name.endswith("base_layer.weight") for name in halved) == sum(
        "lora_A" in name for name in held
    )
    assert any("mlp.down_proj" in name for name in halved)
    assert not [name for name in halved if "lora_" in name or "norm" in name or "lm_head" in name]
    assert held[next(name for name in held if "embed_tokens" in name)] == torch.float32


def test_float32_and_weights_that_train_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3))
    model[2].requires_grad_(False)
    with frozen_linears_in(torch.float32, [model]):
        assert {value.dtype for value in model.parameters()} == {torch.float32}
    with frozen_linears_in(torch.bfloat16, [model]):
        assert [part.weight.dtype for part in model] == [torch.float32, torch.float32, torch.bfloat16]


def test_a_weight_tied_to_an_embedding_stays_as_it_is() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(5, 3), "out": nn.Linear(3, 5, bias=False)})
    model["out"].weight = model["words"].weight
    model.requires_grad_(False)
    with frozen_linears_in(torch.bfloat16, [model]):
        assert model["words"].weight.dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_towers_compute_under_autocast(family: str) -> None:
    policy = FAMILIES[family]()
    shape = (policy.processor.num_frames, *[policy.processor.image_size] * 2, 3)
    frames = torch.randint(0, 255, shape, dtype=torch.uint8).numpy()
    clip = Clip("a", frames, torch.randint(-9000, 9000, (12000,)).short().numpy(), 16000)
    seen: set[torch.dtype] = set()
    for module in policy.model.modules():
        if type(module) is nn.Linear:
            module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    exact = policy_encoder(policy)(clip)
    assert seen == {torch.float32}
    seen.clear()
    half = policy_encoder(policy, torch.bfloat16)(clip)
    assert seen == {torch.bfloat16}
    for name, value in exact.items():
        assert half[name].dtype == value.dtype == torch.float32
        assert not torch.equal(half[name], value)
        assert float((half[name] - value).norm() / value.norm()) < 0.02
