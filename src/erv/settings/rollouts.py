"""The section `rollouts`: explanations that a policy samples for the verifier to learn from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from erv.settings.section import PositiveFloat, PositiveInt, Section


class RolloutSettings(Section):
    """Explanations that the cold start samples for the clips of the reasoning set.

    Attributes:
        policies: `sft`, or nothing; each has its own stage `rollouts@NAME`.
        per_clip: explanations per clip.
        temperature: of the sampling.
        max_new_tokens: length of a completion.
        batch_size: clips at a time.
    """

    policies: Annotated[tuple[str, ...], Field(max_length=1)]
    per_clip: PositiveInt
    temperature: PositiveFloat
    max_new_tokens: PositiveInt
    batch_size: PositiveInt
