"""Types of parameters, by which the form on Prefect's page offers what there is and refuses what there isn't.

Prefect makes a JSON schema of a flow's signature when the flow is deployed, and its server refuses a run
whose parameters don't fit. In the flow itself these are plain texts, and their faults are told in our words.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from erv.settings import profile
from erv.stack.deployments import STAGES_VARIABLE


class Offered:
    """Offers a choice of names in the form, as they are when the schema is made, and none of them.

    Where nothing is chosen, the text is empty: of a value that may be None, the form shows no field at first.
    """

    def __init__(self, names: Callable[[], Sequence[str]], *, within: bool = False) -> None:
        self._names, self._within = names, within

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema of a text, with the names if there are any."""
        schema: dict[str, Any] = dict(handler(core))
        if names := list(self._names()):
            schema["enum"] = [*([] if self._within else [""]), *names]
        return schema


def stage_names() -> list[str]:
    """The stages and groups of `dvc.yaml`, which `erv run --deploy` asks of DVC; none for anybody else."""
    return os.environ.get(STAGES_VARIABLE, "").split()


StageName = Annotated[str, Offered(stage_names)]
StageNames = Sequence[Annotated[str, Offered(stage_names, within=True)]]  # of a list, nothing is to be empty
ProfileName = Annotated[str, Offered(profile.names)]
Override = Annotated[
    str, Field(json_schema_extra={"pattern": r"^[A-Za-z_][\w.-]*=", "examples": ["grpo.beta=0.1"]})
]
PlacedStage = Annotated[
    str,
    Field(
        json_schema_extra={
            "pattern": r"^\w[\w-]*(@[\w.-]+)?=[A-Za-z0-9][\w.-]{0,63}$",
            "examples": ["grpo=gpu"],
        }
    ),
]
Workers = Annotated[int, Field(ge=1, le=32)]
