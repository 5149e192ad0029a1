"""The section `sources`: where the raw trees are."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from erv.settings.section import Section

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|[Ss]3:")
_BUCKET = re.compile(r"s3://[^/\s]+(/.*)?")
_FOLDER = re.compile(r"file:///.*")


def _place_of_a_tree(place: str) -> str:
    if not place.strip():
        raise ValueError("is empty, expected s3://bucket/prefix or a local folder")
    if _SCHEME.match(place) and not (_BUCKET.fullmatch(place) or _FOLDER.fullmatch(place)):
        raise ValueError("not a valid place for a source; expected s3://bucket/prefix or a local folder")
    return place


Place = Annotated[str, AfterValidator(_place_of_a_tree)]


class SourcesSettings(Section):
    """Where each raw tree is: `s3://bucket/prefix` or a local folder. Data sets are listed by name."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, Place] = Field(init=False)

    base: Place
    judge: Place
