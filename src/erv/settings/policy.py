"""The section `policy`: the family of the models that all stages train."""

from __future__ import annotations

from typing import Literal

from erv.settings.section import Section


class PolicySettings(Section):
    """The family of the base checkpoint: the folder of `erv.policies` that reads it."""

    family: Literal["humanomni", "qwen_omni"]
