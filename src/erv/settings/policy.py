"""The section `policy`: the family of the models that all stages train, and what they are asked."""

from __future__ import annotations

from typing import Annotated, Literal

from erv.settings.section import Section, of_form


class PolicySettings(Section):
    """The base checkpoint.

    Attributes:
        family: the folder of `erv.policies` that reads it.
        prompt: file with what policies are asked, in the workspace; see `erv.prompts.read_prompt`.
    """

    family: Literal["humanomni", "qwen_omni"]
    prompt: Annotated[str, of_form(r"data/prompts/[^/]+\.txt", "a file data/prompts/NAME.txt")]
