"""The static cache writes what the growing one writes; on a CPU, without a graph."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from erv.errors import SettingsError
from erv.policies import Policy
from erv.policies.common.policy import token_positions
from erv.sample.tiny_policy import build_tiny_policy
from erv.settings import load_settings, parse_settings
from erv.training.grpo.shared_prompts import SharedPrompt
from erv.training.grpo.static_decode import StaticStep, write_with_static_cache
from tests.support.runtime import machine
from tests.support.tiny_grpo import SIZES
from tests.support.tiny_qwen_omni import tiny_qwen_omni
from tests.unit.training.grpo.test_checkpointed_prompts import KEYS, folder, trainer_of  # noqa: F401

TEXTS = ["The person smiles.", "A loud voice."] * 9
FAMILIES = {
    "humanomni": lambda: Policy(*build_tiny_policy(TEXTS, seed=3, sizes=SIZES)),
    "qwen_omni": lambda: tiny_qwen_omni(TEXTS, 3),
}
GROUPS = torch.tensor([0, 1, 0, 1, 1])
LENGTH = 11


def greedy(suppressed: list[int]) -> Any:
    def draw(logits: torch.Tensor, rows: torch.Tensor, token: int) -> torch.Tensor:
        logits = logits.clone()
        logits[:, suppressed] = -torch.inf
        return logits.argmax(-1)

    return draw


def prompts(policy: Policy) -> dict[str, torch.Tensor]:
    """Two prompts with one clip each; the second has no sound, so it is padded on the left."""
    processor = policy.processor
    texts = [processor.prompt_ids(), processor.prompt_ids(audio=False)]
    length = max(map(len, texts))
    ids = torch.tensor([[processor.tokenizer.pad_token_id] * (length - len(row)) + row for row in texts])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in texts])
    noise = torch.Generator().manual_seed(1)
    frames = (2, processor.num_frames, *[processor.image_size] * 2, 3)
    clips = [
        processor.prepare_clip(
            torch.randint(0, 255, frames, generator=noise, dtype=torch.uint8).numpy()[number],
            torch.randint(-9000, 9000, (12000,), generator=noise).short().numpy(),
            16000,
        )
        for number in range(2)
    ]
    features = policy.model.encode_clips(
        **{name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}
    )
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": token_positions(policy.model, ids, mask),
        "clip_index": torch.arange(2),
        **features,
        **processor.question_inputs(),
    }


@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_completions_equal_those_of_generate(family: str, half: bool) -> None:
    policy = FAMILIES[family]()
    inputs = prompts(policy)
    never = policy.model.placeholder_ids
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        first = policy.model(**inputs).logits[:, -1].float()
        end = greedy(never)(first, GROUPS, 0)[0].item()  # a row of the first group ends at once
        for ends in ([end], [policy.processor.tokenizer.eos_token_id]):
            found = write_with_static_cache(
                policy.model,
                policy.model,
                SharedPrompt(inputs, GROUPS),
                greedy(never),
                ends=ends,
                limit=LENGTH,
            )
            ids = inputs["input_ids"]
            generated = policy.model.generate(
                **{name: value for name, value in inputs.items() if name != "position_ids"},
                generation_config=GenerationConfig(
                    max_new_tokens=LENGTH,
                    do_sample=False,
                    eos_token_id=ends,
                    pad_token_id=policy.processor.tokenizer.pad_token_id,
                    suppress_tokens=never,
                ),
            )[:, ids.shape[1] :].tolist()
            cut = [row[: row.index(ends[0]) + 1] if ends[0] in row else row for row in generated]
            assert found == [cut[group] for group in GROUPS.tolist()]
            assert ends != [end] or len(found[0]) == 1
            assert ends == [end] or max(map(len, found)) > 1


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_trainer_samples_what_it_samples_with_the_growing_cache(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lora: bool,
) -> None:
    steps = []
    run = StaticStep.__call__
    monkeypatch.setattr(
        StaticStep, "__call__", lambda step, tokens: (steps.append(len(tokens)), run(step, tokens))[1]
    )
    written = {}
    for static in (False, True):
        # A new trainer, since another generation of the same step has other random numbers.
        trainer = trainer_of(folder, tmp_path, twice=False, lora=lora)
        rows = [row for row in trainer.train_dataset if row["clip"] in KEYS] * 2
        trainer.static_decode = static
        torch.manual_seed(5)
        with torch.no_grad():
            output = trainer._generate_and_score_completions([dict(row) for row in rows])
        written[static] = output["completion_ids"]
        assert bool(steps) is static
    assert torch.equal(written[True], written[False])
    assert written[True].unique().numel() > 10


def test_the_switch_is_off_and_refused_where_weights_are_sharded() -> None:
    assert load_settings().machine.grpo.static_decode is False
    assert machine().grpo.static_decode is False
    raw = load_settings().model_dump(by_alias=True, mode="json")
    raw["machine"] |= {"accelerate": "zero3", "processes": 2}
    raw["machine"]["grpo"]["static_decode"] = True
    with pytest.raises(
        SettingsError, match="static_decode needs whole weights in each process, but accelerate is zero3"
    ):
        parse_settings(raw)
