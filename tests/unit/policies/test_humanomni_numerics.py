"""Checkpointed gradients, LoRA, attention kernels and half precision, on a random model."""

import copy
import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers.utils import is_flash_attn_2_available

from erv.policies import Policy, load_policy
from erv.policies.humanomni import HumanOmniForConditionalGeneration
from erv.prompts import format_completion
from erv.sample.tiny_policy import build_tiny_policy
from tests.support.policy_contract import prepared, random_clips
from tests.support.sizes import SMALLEST

TEXTS = [format_completion("The voice is loud. She seems angry.", "anger")] * 3
SUB_MODELS = ("vision_tower", "audio_tower", "gate_encoder", "language_model")


@pytest.fixture(scope="module")
def policy():
    torch.set_num_threads(1)
    return Policy(*build_tiny_policy(TEXTS, seed=1, sizes=SMALLEST))


@pytest.fixture(scope="module")
def inputs(policy):
    """Three right-padded rows over raw clips, of which one is silent."""
    rows = [policy.processor.prompt_ids(audio=sound) for sound in (True, False, True)]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    media = prepared(policy, random_clips(policy, 3))
    return {"input_ids": ids, "attention_mask": mask, **media, **policy.processor.gate_inputs(1)}


def loss_and_gradients(model, inputs):
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    model.zero_grad()
    outputs = model(**inputs, labels=labels)
    outputs.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return outputs, gradients


def count_layer_runs(model):
    """How often each language-model block runs: twice where the backward pass computes it again."""
    runs = []
    layer = model.get_base_model().model.language_model.layers[0] if hasattr(model, "peft_config") else None
    layer = layer or model.model.language_model.layers[0]
    layer.self_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    return runs


# --- gradient checkpointing ---


@pytest.mark.parametrize("reentrant", [None, False, True])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_checkpointing_changes_neither_loss_nor_gradients(policy, inputs, lora, reentrant):
    model = copy.deepcopy(policy.model)
    if lora:
        adapters = LoraConfig(r=2, target_modules=r"model\.language_model\.layers\..*\.(q|v)_proj")
        torch.manual_seed(0)
        model = get_peft_model(model, adapters)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at the start, and then lora_A has no gradient
                torch.nn.init.normal_(parameter, std=0.1)
    model.train()
    plain, expected = loss_and_gradients(model, inputs)
    options = {} if reentrant is None else {"gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    model.gradient_checkpointing_enable(**options)
    if lora:
        model.enable_input_require_grads()
    runs = count_layer_runs(model)
    outputs, gradients = loss_and_gradients(model, inputs)
    assert len(runs) == 2, "computed again in the backward pass"
    assert torch.equal(outputs.loss, plain.loss)
    assert outputs.past_key_values is None
    if lora and reentrant is not True:
        assert set(expected) == {name for name in gradients if "lora" in name} == set(gradients)
    for name, gradient in expected.items():
        assert gradient.abs().sum() > 0
        assert torch.equal(gradients[name], gradient), name
    model.gradient_checkpointing_disable()
    loss_and_gradients(model, inputs)
    assert len(runs) == 3


def test_frozen_towers_neither_train_nor_checkpoint(policy, inputs):
    model = copy.deepcopy(policy.model)
    model.gradient_checkpointing_enable()
    model.train()
    towers = (model.model.vision_tower, model.model.audio_tower)
    assert not any(module.training for tower in towers for module in tower.modules())
    assert model.model.language_model.training
    _, gradients = loss_and_gradients(model, inputs)
    assert {name.split(".")[1] for name in gradients} == {
        "language_model",
        "visual_projector",
        "audio_projector",
        "gate",
        "gate_encoder",
    }
    model.eval()
    with torch.no_grad():
        assert model(**inputs, use_cache=True).past_key_values is not None, "evaluation keeps its cache"


def test_a_cache_asked_for_under_checkpointing_is_left_out_and_said(policy, inputs, caplog):
    model = copy.deepcopy(policy.model).train()
    model.gradient_checkpointing_enable()
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.WARNING, logger="transformers")  # whatever ran before in this process
    try:
        from transformers.utils.generic import logger as source

        source.warning_once.cache_clear()
        outputs = model(**inputs, use_cache=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert outputs.past_key_values is None
    assert "`use_cache=True` is incompatible with gradient checkpointing" in caplog.text


# --- attention kernels ---


@torch.no_grad()
def test_sdpa_and_eager_agree(policy, inputs, tmp_path):
    policy.save(tmp_path / "policy")
    logits = {}
    for kernel in ("sdpa", "eager"):
        model = HumanOmniForConditionalGeneration.from_pretrained(
            tmp_path / "policy", attn_implementation=kernel
        )
        assert model.config._attn_implementation == kernel
        for name in SUB_MODELS:
            assert getattr(model.model, name).config._attn_implementation == kernel, name
        logits[kernel] = model(**inputs).logits
    true = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits["eager"][true], logits["sdpa"][true], atol=1e-5, rtol=0)


def test_flash_attention_is_passed_on_or_refused_by_transformers(policy, tmp_path):
    """Its numbers need a GPU; here, that every sub-model supports it and that asking for it has an effect."""
    model = policy.model
    assert model._supports_flash_attn
    assert all(getattr(model.model, name)._supports_flash_attn for name in SUB_MODELS)
    assert all(getattr(model.model, name)._supports_sdpa for name in SUB_MODELS)
    policy.save(tmp_path / "policy")
    if is_flash_attn_2_available():
        loaded = load_policy(tmp_path / "policy").model
        loaded.set_attn_implementation("flash_attention_2")
        for name in SUB_MODELS:
            assert getattr(loaded.model, name).config._attn_implementation == "flash_attention_2"
    else:
        with pytest.raises((ImportError, ValueError), match=r"(?i)flash"):
            HumanOmniForConditionalGeneration.from_pretrained(
                tmp_path / "policy", attn_implementation="flash_attention_2"
            )


# --- half precision ---


@torch.no_grad()
def test_bfloat16_all_the_way(policy, inputs, tmp_path):
    """Weights, features, masks and logits; 2 ** -8 is the rounding of one number of the size of a logit."""
    policy.save(tmp_path / "policy")
    half = load_policy(tmp_path / "policy", dtype="bfloat16")
    model = half.model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    seen = {}

    def note(name):
        def hook(module, args, kwargs, output):
            values = [*args, *kwargs.values(), *(output if isinstance(output, tuple) else [output])]
            floats = {v.dtype for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()}
            seen.setdefault(name, set()).update(floats)

        return hook

    handles = [
        module.register_forward_hook(note(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name and not list(module.children()) and "rotary" not in name
    ]
    handles += [
        layer.register_forward_hook(note(f"block {number}"), with_kwargs=True)
        for number, layer in enumerate(model.model.language_model.layers)
    ]
    found = model(**inputs).logits
    for handle in handles:
        handle.remove()
    assert {name: kinds - {torch.bfloat16} for name, kinds in seen.items() if kinds - {torch.bfloat16}} == {}
    assert "block 1" in seen
    assert found.dtype == torch.bfloat16
    expected = policy.model(**inputs).logits
    true = inputs["attention_mask"].bool()
    error = (found.float() - expected)[true].abs().max()
    assert error < 8 * 2**-8 * expected[true].abs().max()
    text = {
        name: inputs[name][:1] for name in ("input_ids", "attention_mask", "pixel_values", "input_features")
    }
    gate = half.processor.gate_inputs(1)
    generated = model.generate(**text, **gate, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert generated.shape[1] == text["input_ids"].shape[1] + 4


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_survives_saving(policy, inputs, tmp_path, dtype):
    policy.save(tmp_path / "full")
    half = load_policy(tmp_path / "full", dtype=dtype)
    half.save(tmp_path / "half")
    again = HumanOmniForConditionalGeneration.from_pretrained(tmp_path / "half")
    assert again.dtype == getattr(torch, dtype), "the folder says what it holds"
    state = again.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in half.model.state_dict().items())
    assert torch.equal(again(**inputs).logits, half.model(**inputs).logits)
    assert load_policy(tmp_path / "half").model.dtype == torch.float32


def test_training_in_bfloat16_under_autocast_has_finite_gradients(policy, inputs):
    model = copy.deepcopy(policy.model).train()
    _, expected = loss_and_gradients(model, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, gradients = loss_and_gradients(model, inputs)
    assert torch.isfinite(outputs.loss)
    assert set(gradients) == set(expected)
    large = max(expected, key=lambda name: expected[name].norm())
    assert (
        torch.nn.functional.cosine_similarity(gradients[large].flatten(), expected[large].flatten(), dim=0)
        > 0.98
    )
