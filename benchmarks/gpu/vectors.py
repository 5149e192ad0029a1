"""The parity vectors of the released network, on this device: what `tests/golden` holds on a CPU.

Float32 without TF32 keeps the tests' tolerance times ten: a GPU sums in another order. Convolutions (the
first layer of each tower) use TF32 by default, which rounds products to 10 bits; that error is shown too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.gpu.figures import Context
from erv.policies.humanomni import HumanOmniForConditionalGeneration

DATA = Path(__file__).parents[2] / "tests" / "golden" / "data"
LIMIT = 1e-3  # of a logit, float32
TF32_LIMIT = 0.05  # of a logit, TF32 in convolutions

Tensors = dict[str, torch.Tensor]


def vectors(context: Context) -> None:
    """Logits of every forward case, the scores of a group, and greedy tokens."""
    folders = sorted(DATA.glob("humanomni_parity*"))
    context.figures.hold("there are vectors", bool(folders))
    worst = 0.0
    for folder in folders:
        model = HumanOmniForConditionalGeneration.from_pretrained(folder).eval().to(context.device)
        cases = {case["name"]: case for case in json.loads((folder / "cases.json").read_text())["cases"]}
        tensors = {
            name: value.to(context.device) for name, value in load_file(folder / "io.safetensors").items()
        }
        forward = [name for name, case in cases.items() if "logits" in case.get("shapes", {})]

        def gap(
            name: str, model: HumanOmniForConditionalGeneration = model, tensors: Tensors = tensors
        ) -> float:
            return _logit_gap(model, _case(tensors, name))

        exact = _largest(forward, gap, tf32=False)
        worst = max(worst, exact)
        context.figures.check(f"{folder.name}: logits", exact, LIMIT)
        if context.on_gpu:
            context.figures.check(
                f"{folder.name}: logits with TF32", _largest(forward, gap, tf32=True), TF32_LIMIT
            )
        torch.backends.cudnn.allow_tf32 = False
        for name, case in cases.items():
            if "generated_ids" in case.get("shapes", {}):
                expected = _case(tensors, name)["generated_ids"]
                same = _greedy(model, _case(tensors, name), expected.shape[1]) == expected.tolist()
                context.figures.hold(f"{folder.name}: greedy tokens of {name}", same)
        if "grpo_scoring" in cases:
            case = _case(tensors, "grpo_scoring")
            length, group = cases["grpo_scoring"]["completion_length"], cases["grpo_scoring"]["group"]
            context.figures.check(
                f"{folder.name}: scores of a group", _score_gap(model, case, length, group), LIMIT
            )
    context.figures.say(f"largest difference of a logit {worst:.1e}, greedy tokens compared")


def _largest(names: list[str], gap: Callable[[str], float], *, tf32: bool) -> float:
    torch.backends.cudnn.allow_tf32 = tf32
    return max(map(gap, names))


def _case(tensors: Tensors, name: str) -> Tensors:
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _inputs(case: Tensors) -> Tensors:
    """All inputs in our names; placeholders are negative, as they are in the vectors."""
    pixels = [case[key] for key in sorted(case) if key.startswith("pixel_values.")]
    inputs = {
        "input_ids": case["input_ids"],
        "attention_mask": case["attention_mask"],
        "pixel_values": torch.stack(pixels),
        "gate_input_ids": case["bert.input_ids"],
        "gate_attention_mask": case["bert.attention_mask"],
    }
    return inputs | ({"input_features": case["audios"]} if "audios" in case else {})


@torch.no_grad()
def _logit_gap(model: HumanOmniForConditionalGeneration, case: Tensors) -> float:
    true = case["expanded_attention_mask"].bool()
    logits = model(**_inputs(case)).logits
    return float((logits[true] - case["logits"][true]).abs().max())


def _greedy(model: HumanOmniForConditionalGeneration, case: Tensors, length: int) -> list[list[int]]:
    options = {"do_sample": False, "max_new_tokens": length, "min_new_tokens": length}
    return model.generate(**_inputs(case), **options).tolist()


@torch.no_grad()
def _score_gap(model: HumanOmniForConditionalGeneration, case: Tensors, length: int, group: int) -> float:
    """Log-probabilities of a group whose clip is encoded once."""
    inputs = {
        "input_ids": case["input_ids"],
        "attention_mask": case["attention_mask"],
        "pixel_values": case["images"],
        "input_features": case["audios"][:, 0],
        "gate_input_ids": case["bert.input_ids"],
        "gate_attention_mask": case["bert.attention_mask"],
        "clip_index": torch.zeros(group, dtype=torch.long, device=case["input_ids"].device),
    }
    logits = model(**inputs, logits_to_keep=length + 1).logits
    ids, true = case["input_ids"][:, -length:], case["attention_mask"][:, -length:].bool()
    scored = logits[:, :-1].log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
    return float((scored[true] - case["completion_logps"][true]).abs().max())
