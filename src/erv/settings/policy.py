"""The section `policy` of `params.yaml`: the models that all stages train."""

from __future__ import annotations

from typing import Literal

from erv.settings.section import Section


class PolicySettings(Section):
    """The family of the base checkpoint: the folder of `erv.policies` whose classes read it."""

    family: Literal["humanomni", "qwen_omni"]
