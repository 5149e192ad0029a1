"""The seams of TRL that `OmniGRPOTrainer` stands on; an upgrade that moves one fails here, by name."""

import inspect
from typing import Any

import pytest
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer import grpo_trainer
from trl.trainer.utils import FusedCausalLMOutput

from erv.settings import LossType
from erv.training.grpo.trainer import OmniGRPOTrainer

# What we override, with the parameters that TRL 1.16 calls it by.
SEAMS = {
    "__init__": None,  # handed on as it comes
    "_generate_and_score_completions": ["inputs"],
    "_calculate_rewards": ["inputs", "prompts", "completions", "completion_ids_list"],
    "_tokenize_prompts": ["prompts"],
    "_generate_single_turn": [
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
    "_get_per_token_logps_and_entropies": [
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
        "compute_aux_loss",
    ],
    "_compute_loss": ["model", "inputs"],
    "_save_checkpoint": ["model", "trial"],
    "create_model_card": None,
    "_send_telemetry": None,
}
MOVED = "TRL has moved this seam: read its new code before changing OmniGRPOTrainer"


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_every_override_is_a_known_seam() -> None:
    overridden = {
        name
        for name, value in vars(OmniGRPOTrainer).items()
        if callable(value) and any(name in vars(parent) for parent in GRPOTrainer.__mro__[:-1])
    }
    assert overridden == set(SEAMS)


@pytest.mark.parametrize("name", [name for name, expected in SEAMS.items() if expected])
def test_trl_calls_the_seam_as_before(name: str) -> None:
    expected = SEAMS[name]
    assert expected is not None
    assert parameters(getattr(GRPOTrainer, name))[: len(expected)] == expected, MOVED
    assert parameters(getattr(OmniGRPOTrainer, name))[: len(expected)] == expected


@pytest.mark.parametrize(
    ("method", "text"),
    [
        # the order in which the side table is filled, used and indexed
        ("_prepare_inputs", "self._generate_and_score_completions(generation_batch)"),
        ("_prepare_inputs", "split_tensor_dict(generation_batch, self.args.steps_per_generation)"),
        ("_prepare_inputs", "generate_every = self.args.steps_per_generation * self.num_iterations"),
        # what the generation that the watcher is handed is made of
        (
            "_generate_and_score_completions",
            "self._calculate_rewards(inputs, prompts, completions, completion_ids_list)",
        ),
        ("_generate_and_score_completions", '"advantages": advantages, "num_items_in_batch"'),
        ("_generate_and_score_completions", "self.accelerator.process_index * len(prompts)"),
        ("_generate_and_score_completions", '"prompt_mask": prompt_mask'),
        ("_generate_and_score_completions", '"completion_mask": completion_mask'),
        ("_calculate_rewards", "rewards_per_func = gather(rewards_per_func)"),
        ("_generate", "self._tokenize_prompts(prompts)"),
        ("_generate", "self._generate_single_turn("),
        ("_generate_and_score_completions", "self._get_per_token_logps_and_entropies("),
        ("_compute_loss", "self._get_per_token_logps_and_entropies("),
        ("compute_loss", "self._compute_loss(model, inputs)"),
        # what our own generation does in place of TRL's
        ("_generate_single_turn", "gather_deepspeed3_params=self.args.ds3_gather_for_generation"),
        ("_generate_single_turn", "generation_kwargs=self.generation_kwargs"),
        ("_generate_single_turn", "self._dist.summon_full_params(self.model_wrapped, recurse=False)"),
        ("_generate_single_turn", "generation_config=self.generation_config"),
        # what our own scoring does in place of TRL's
        ("_get_per_token_logps_and_entropies", "labels=labels, fused_lm_head=True"),
        ("_get_per_token_logps_and_entropies", "outputs.log_probs[:, -logits_to_keep:]"),
        ("_get_per_token_logps_and_entropies", "outputs.entropy[:, -logits_to_keep:]"),
        ("_get_per_token_logps_and_entropies", "with self.accelerator.autocast():"),
    ],
)
def test_trl_still_does_what_the_overrides_lean_on(method: str, text: str) -> None:
    source = " ".join(inspect.getsource(getattr(GRPOTrainer, method)).split())
    assert " ".join(text.split()) in source, MOVED


def test_the_fused_head_runs_the_inner_model() -> None:
    source = inspect.getsource(grpo_trainer.add_fused_lm_head)
    assert "getattr(self, backbone_attr)(*args, **kwargs)" in source, MOVED
    assert {"log_probs", "entropy"} <= set(FusedCausalLMOutput.__annotations__)
    assert "generation_kwargs" in parameters(unwrap_model_for_generation)


def test_every_loss_of_the_settings_is_one_of_trl() -> None:
    documented = inspect.getsource(grpo_trainer.GRPOTrainer._compute_loss)
    for loss in LossType.__args__:  # type: ignore[attr-defined]
        assert f'"{loss}"' in documented, loss


def test_defaults_that_are_not_the_papers_are_set() -> None:
    """What `grpo_config` must go on naming, for TRL's own choice is another one."""
    fields = {name: field.default for name, field in GRPOConfig.__dataclass_fields__.items()}
    assert fields["loss_type"] == "dapo"
    assert fields["beta"] == 0.0
    assert fields["num_generations"] == 8
