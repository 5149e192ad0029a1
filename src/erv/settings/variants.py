"""The section `variants`: the arms of the comparison, each with its rewards."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from erv.settings.grpo import GrpoSettings
from erv.settings.section import Section

BUILT_IN_REWARDS = ("format", "accuracy", "explanation", "coherence", "grounded")
ABOUT_EXPLANATIONS = ("explanation", "coherence", "grounded")


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
            raise ValueError(f"no module {package!r} for this reward; install it or correct the path")
        return name


class VariantSettings(Section):
    """One arm of the comparison: its training method and its rewards.

    In `params.yaml` rewards are a mapping of names to weights, so that one weight is a parameter of its own.
    """

    method: Literal["grpo", "rft"] = "grpo"
    passes_at: float | None = None  # rft: trains on completions with at least this from every reward
    credit: Literal["completion", "sentence"] | None = None  # grpo: None takes grpo.credit
    thinks: bool = True  # grpo: False answers at once, after an empty explanation that the policy is given
    rewards: Annotated[tuple[RewardSettings, ...], Field(min_length=1)]

    def applied_to(self, grpo: GrpoSettings) -> GrpoSettings:
        """The section `grpo` as this arm uses it."""
        if self.credit is None:
            return grpo
        return GrpoSettings.model_validate(grpo.model_dump() | {"credit": self.credit})

    @field_validator("rewards", mode="before")
    @classmethod
    def _by_name(cls, rewards: Any) -> Any:
        if isinstance(rewards, Mapping):
            return tuple({"name": str(name), "weight": weight} for name, weight in rewards.items())
        if isinstance(rewards, tuple) and all(isinstance(reward, RewardSettings) for reward in rewards):
            return rewards
        raise ValueError("expected names with weights, such as {format: 1.0, accuracy: 1.0}")

    @field_serializer("rewards")
    def _as_mapping(self, rewards: tuple[RewardSettings, ...]) -> dict[str, float]:
        return {reward.name: reward.weight for reward in rewards}

    @model_validator(mode="after")
    def _rewards_count(self) -> VariantSettings:
        if not any(reward.weight for reward in self.rewards):
            raise ValueError("every reward has weight 0, so nothing is learned; give one another weight")
        names = [reward.name for reward in self.rewards]
        if self.credit == "sentence" and not set(names) - {"format", "accuracy"}:
            raise ValueError(
                "credit: sentence needs a reward that reads sentences, such as explanation; leave credit out"
            )
        return self

    @model_validator(mode="after")
    def _rejection_has_a_mark(self) -> VariantSettings:
        if (self.method == "rft") != (self.passes_at is not None):
            raise ValueError("passes_at is for method: rft, which needs it; give both or neither")
        return self

    @model_validator(mode="after")
    def _some_is_for_grpo(self) -> VariantSettings:
        if self.method == "rft" and self.credit is not None:
            raise ValueError("credit is for method: grpo; rft learns whole completions, so leave it out")
        if self.method == "rft" and not self.thinks:
            raise ValueError(
                "thinks: false is for method: grpo; rft learns from explanations, so leave it out"
            )
        return self

    @model_validator(mode="after")
    def _nothing_reads_what_is_not_said(self) -> VariantSettings:
        about = sorted({reward.name for reward in self.rewards} & {"format", *ABOUT_EXPLANATIONS})
        if not self.thinks and about:
            raise ValueError(
                f"thinks: false leaves nothing to say for the rewards {', '.join(about)}; use accuracy, or a"
                " reward of your own"
            )
        return self
