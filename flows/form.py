"""Types of parameters, by which the form on Prefect's page offers what there is and refuses what there isn't.

Prefect makes a JSON schema of a flow's signature when the flow is deployed, and its server refuses a run
whose parameters don't fit. In the flow itself these are plain texts, and their faults are told in our words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from erv.settings import profile
from erv.settings.pool_name import PATTERN
from erv.stack.deployments import PLACED_VARIABLE, SOURCES_VARIABLE, STAGES_VARIABLE


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


def single_stages() -> list[str]:
    """Those of them that are one stage, not several."""
    names = stage_names()
    several = {name for name in names if sum(other.startswith(f"{name}@") for other in names) > 1}
    return [name for name in names if name not in several]


def source_names() -> list[str]:
    """The sources of `params.yaml`, which `erv run --deploy` reads; none for anybody else."""
    return os.environ.get(SOURCES_VARIABLE, "").split()


class Placing:
    """Takes STAGE=POOL in the form: a stage or group that there is when the schema is made, and any pool."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema of a text, with a pattern that Python and browsers read alike."""
        known = os.environ.get(PLACED_VARIABLE, "").split()
        names = "|".join(re.sub(r"([^\w@-])", r"\\\1", name) for name in known)
        stage = f"({names})" if names else r"\w[\w-]*(@[\w.-]+)?"
        return {**handler(core), "pattern": f"^{stage}={PATTERN}$", "examples": ["grpo=gpu"]}


StageName = Annotated[str, Offered(single_stages)]
StageNames = Sequence[Annotated[str, Offered(stage_names, within=True)]]  # of a list, nothing is to be empty
ProfileName = Annotated[str, Offered(profile.names)]
Override = Annotated[
    str, Field(json_schema_extra={"pattern": r"^[A-Za-z_][\w.-]*=", "examples": ["grpo.beta=0.1"]})
]
PlacedStage = Annotated[str, Placing()]
Workers = Annotated[int, Field(ge=1, le=32)]
SourceNames = Sequence[Annotated[str, Offered(source_names, within=True)]]
Hours = Annotated[float, Field(gt=0, le=24 * 366)]
# Prefect's command line makes a number of `-p version=2`. As the default is a text, the form shows a field of
# that kind, which takes numbers, too.
Number = Annotated[int, Field(ge=1)]
Version = Number | Annotated[str, Field(min_length=1, json_schema_extra={"examples": ["challenger", "4"]})]
Model = (
    Number
    | Annotated[str, Field(min_length=1, json_schema_extra={"examples": ["champion", "4", "/a/folder"]})]
)
