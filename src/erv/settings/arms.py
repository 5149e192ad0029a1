"""The section `arms`: policies that are evaluated without being trained here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from erv.settings.section import NAME_OF_A_MODEL, Section


class ArmSettings(Section):
    """One policy that takes part in the comparison as it is; each has its own stage `arms`.

    Attributes:
        name: under which `compare.policies` lists it.
        folder: `models/policy/NAME` of a policy of this run, or any folder with a policy.
        thinks: whether it explains before it answers; False answers at once, after an empty explanation.
    """

    name: Annotated[str, NAME_OF_A_MODEL]
    folder: Annotated[str, Field(min_length=1)]
    thinks: bool = True
