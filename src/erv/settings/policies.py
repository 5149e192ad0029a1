"""The sections of `params.yaml` that make policies: `sft` and `grpo`."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from erv.settings.section import PositiveFloat, PositiveInt, Section, Share

BUILT_IN_REWARDS = ("format", "accuracy", "explanation")
# The losses of TRL 1.16.
LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]


class LoraSettings(Section):
    """Adapters through PEFT; with `quantize: nf4` the frozen base is kept in four bits (QLoRA)."""

    enabled: bool
    rank: PositiveInt
    alpha: PositiveInt
    dropout: Share
    quantize: Literal["none", "nf4"]

    @model_validator(mode="after")
    def _only_adapters_train_on_four_bits(self) -> LoraSettings:
        if self.quantize != "none" and not self.enabled:
            raise ValueError(f"quantize is {self.quantize}, which trains adapters only; set enabled: true")
        return self


class SftSettings(Section):
    """Cold-start supervised fine-tuning."""

    max_steps: PositiveInt | None
    epochs: PositiveInt | None
    batch_size: PositiveInt
    rows_per_pass: PositiveInt | None
    packing: bool
    gradient_checkpointing: bool
    learning_rate: PositiveFloat
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_grad_norm: PositiveFloat
    save_steps: PositiveInt
    lora: LoraSettings

    @model_validator(mode="after")
    def _lengths_fit(self) -> SftSettings:
        _one_length(self.max_steps, self.epochs)
        if self.rows_per_pass is not None and self.batch_size % self.rows_per_pass:
            raise ValueError(
                f"rows_per_pass ({self.rows_per_pass}) must divide batch_size ({self.batch_size})"
            )
        return self


class RewardSettings(Section):
    """One reward: a built-in name or the dotted path of a callable, and its weight in the sum."""

    name: str
    weight: float

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name in BUILT_IN_REWARDS:
            return name
        package = name.replace(":", ".").split(".")[0]
        if not ("." in name or ":" in name):
            raise ValueError(
                f"expected {', '.join(BUILT_IN_REWARDS)}, or the path of a callable (package.module:name)"
            )
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"no module {package!r} to import the reward from; install it or mend the path")
        return name


class VariantSettings(Section):
    """One arm of the comparison: how it is trained, and the rewards that decide."""

    method: Literal["grpo", "rft"] = "grpo"
    passes_at: float | None = None  # rft: a completion is learned from when each reward is at least this
    rewards: Annotated[tuple[RewardSettings, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _rewards_differ(self) -> VariantSettings:
        names = [reward.name for reward in self.rewards]
        if len(set(names)) != len(names):
            raise ValueError(f"rewards names one twice: {', '.join(names)}; give one a larger weight instead")
        return self

    @model_validator(mode="after")
    def _rejection_has_a_mark(self) -> VariantSettings:
        if (self.method == "rft") != (self.passes_at is not None):
            raise ValueError("passes_at is for method: rft, which needs it; give both or neither")
        return self


class ShapingSettings(Section):
    """What the strict explanation reward asks besides agreement; null switches a part off."""

    min_sentences: PositiveInt | None
    min_words: PositiveInt | None
    max_words: PositiveInt | None
    max_named: PositiveInt | None

    @model_validator(mode="after")
    def _ordered(self) -> ShapingSettings:
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) must not exceed max_words ({self.max_words})")
        return self


class GrpoSettings(Section):
    """Group-relative policy optimisation."""

    max_steps: PositiveInt | None
    epochs: PositiveInt | None
    prompts_per_step: PositiveInt
    num_generations: Annotated[int, Field(ge=2)]
    num_iterations: PositiveInt
    learning_rate: PositiveFloat
    beta: Annotated[float, Field(ge=0.0)]
    temperature: PositiveFloat
    max_completion_length: PositiveInt
    loss_type: LossType
    scale_rewards: Literal["group", "batch", "none"]
    importance_sampling: Literal["token", "sequence"]
    epsilon: PositiveFloat
    epsilon_high: PositiveFloat
    semantics: Literal["strict", "official"]
    shaping: ShapingSettings
    freeze_projectors: bool
    rows_per_pass: PositiveInt | None
    gradient_checkpointing: bool
    save_steps: PositiveInt
    sample_steps: PositiveInt
    collapse_patience: PositiveInt | None
    lora: LoraSettings
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    variants: dict[str, VariantSettings]

    @model_validator(mode="after")
    def _trained_variants_exist(self) -> GrpoSettings:
        if len(set(self.train)) != len(self.train):
            raise ValueError(f"train names a variant twice: {', '.join(self.train)}")
        for name in self.train:
            if name not in self.variants:
                raise ValueError(f"train names {name!r}, expected some of {', '.join(sorted(self.variants))}")
        if "sft" in self.variants:
            raise ValueError("variants names one sft, which is the cold start; choose another name")
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> GrpoSettings:
        _one_length(self.max_steps, self.epochs)
        # TRL keeps the completions of a generation in memory alone: a checkpoint amid its updates loses them.
        for name, steps in (("save_steps", self.save_steps), ("max_steps", self.max_steps)):
            if steps is not None and steps % self.num_iterations:
                raise ValueError(
                    f"{name} ({steps}) must be a multiple of num_iterations ({self.num_iterations}):"
                    " a checkpoint can't fall between updates on the same completions"
                )
        return self

    @model_validator(mode="after")
    def _ratios_fit_the_loss(self) -> GrpoSettings:
        needed = {"luspo": "sequence", "vespo": "token"}.get(self.loss_type, self.importance_sampling)
        if needed != self.importance_sampling:
            raise ValueError(
                f"loss_type {self.loss_type} needs importance_sampling: {needed}, found"
                f" {self.importance_sampling}"
            )
        return self

    @model_validator(mode="after")
    def _passes_are_whole(self) -> GrpoSettings:
        rows = self.prompts_per_step * self.num_generations
        if self.rows_per_pass is not None and rows % self.rows_per_pass:
            raise ValueError(
                f"rows_per_pass ({self.rows_per_pass}) must divide prompts_per_step x num_generations, {rows}"
            )
        return self


def _one_length(max_steps: int | None, epochs: int | None) -> None:
    """Raises `ValueError` unless exactly one of them says how long training is."""
    if (max_steps is None) == (epochs is None):
        raise ValueError("give exactly one of max_steps and epochs, and set the other to null")
