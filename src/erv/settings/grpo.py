"""The section `grpo`: how variants are optimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from erv.settings.lora import LoraSettings
from erv.settings.section import PositiveFloat, PositiveInt, Section, one_length

# The losses of TRL 1.16.
LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]


class ShapingSettings(Section):
    """What the strict explanation reward requires besides agreement; null turns a part off."""

    min_sentences: PositiveInt | None
    min_words: PositiveInt | None
    max_words: PositiveInt | None
    max_named: PositiveInt | None
    min_content_words: PositiveInt | None
    min_cues: PositiveInt | None
    max_conclusions: PositiveInt | None
    max_repeats: NonNegativeInt | None
    repeats_earn: Annotated[float, Field(le=0.0)]

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
    greedy_rollout: bool
    generation: Literal["transformers", "vllm"]
    generation_ratio_cap: Annotated[float, Field(ge=1.0)]
    max_completion_length: PositiveInt
    loss_type: LossType
    scale_rewards: Literal["group", "batch", "none"]
    credit: Literal["completion", "sentence"]
    importance_sampling: Literal["token", "sequence"]
    epsilon: PositiveFloat
    epsilon_high: PositiveFloat
    semantics: Literal["strict", "official"]
    shaping: ShapingSettings
    freeze_projectors: bool
    gradient_checkpointing: bool
    collapse_patience: PositiveInt | None
    lora: LoraSettings

    @model_validator(mode="after")
    def _lengths_fit(self) -> GrpoSettings:
        one_length(self.max_steps, self.epochs)
        # TRL keeps a generation's completions only in memory: a checkpoint between its updates loses them.
        if self.max_steps is not None and self.max_steps % self.num_iterations:
            raise ValueError(
                f"max_steps ({self.max_steps}) must be a multiple of num_iterations ({self.num_iterations}):"
                " a checkpoint can't fall between updates on the same completions"
            )
        return self

    @model_validator(mode="after")
    def _engine_draws(self) -> GrpoSettings:
        if self.greedy_rollout and self.generation == "vllm":
            raise ValueError("greedy_rollout needs generation: transformers; vllm samples all completions")
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
    def _credit_reaches_tokens(self) -> GrpoSettings:
        # The ratio of a sequence spreads whatever its tokens get evenly over all of them.
        if self.credit == "sentence" and self.importance_sampling == "sequence":
            raise ValueError(
                "credit: sentence needs importance_sampling: token, found sequence, which gives all tokens"
                " of a completion the same share"
            )
        return self
